"""What sampling options cost vLLM here: the same requests with and without each option.

    python -m music_ray.bench.sampling [OUT.json]

The peer is plain temperature sampling in the same engine. Rounds of all settings alternate, so that a
machine that slows down slows all of them; the ratio is the median over rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from music_ray.bench.record import write_facts
from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines import make_engine
from music_ray.engines.base import Engine, Prompt
from music_ray.models import DEMO_MODEL
from music_ray.progress import quieten_libraries, say

ROUNDS = 3
REQUESTS = 32
TOKENS = 48
PLAIN = "temperature 0.5"
SETTINGS = {
    PLAIN: SamplingConfig(temperature=0.5, top_p=1.0, max_tokens=TOKENS),
    "greedy": SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=TOKENS),
    "top_p 0.9": SamplingConfig(temperature=0.5, top_p=0.9, max_tokens=TOKENS),
    "repetition_penalty 1.1": SamplingConfig(
        temperature=0.5, top_p=1.0, repetition_penalty=1.1, max_tokens=TOKENS
    ),
    "both": SamplingConfig(temperature=0.5, top_p=0.9, repetition_penalty=1.1, max_tokens=TOKENS),
}


async def tokens_per_second(engine: Engine, sampling: SamplingConfig, start: int) -> float:
    """Completion tokens a second of one round; `start` makes its prompts its own."""
    prompts = [
        Prompt([{"role": "user", "content": f"Tell a long story about frog number {start + number}."}])
        for number in range(REQUESTS)
    ]
    began = time.perf_counter()
    done = await asyncio.gather(
        *(engine.generate(prompt, sampling, number) for number, prompt in enumerate(prompts))
    )
    return sum(one.completion_tokens for one in done) / (time.perf_counter() - began)


def main() -> None:
    """Runs all rounds, prints the table, and writes it as JSON where a path is given."""
    quieten_libraries()
    engine = make_engine(
        EngineConfig(model=DEMO_MODEL, max_model_len=512, max_num_seqs=REQUESTS, enforce_eager=True)
    )
    asyncio.run(tokens_per_second(engine, SETTINGS[PLAIN], 0))  # warm-up
    rates: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for round_number in range(ROUNDS):
        for name, sampling in SETTINGS.items():
            rate = asyncio.run(tokens_per_second(engine, sampling, 1000 * (round_number + 1)))
            rates[name].append(rate)
            say(f"round {round_number + 1}/{ROUNDS}: {name}: {rate:.0f} tokens/s")
    table = {}
    for name, found in rates.items():
        ratios = [rate / plain for rate, plain in zip(found, rates[PLAIN], strict=True)]
        table[name] = {
            "tokens_per_second": statistics.median(found),
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
        }
        row = table[name]
        say(
            f"{name:24} {row['tokens_per_second']:6.0f} tokens/s   {row['ratio']:.2f} of plain "
            f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
        )
    if len(sys.argv) > 1:
        facts = {"rounds": ROUNDS, "requests": REQUESTS, "tokens": TOKENS, "settings": table}
        write_facts(sys.argv[1], facts)
    engine.close()


if __name__ == "__main__":
    main()
