"""What a seed of its own costs each request: vLLM then samples its rows one by one.

    python -m music_ray.bench.request_seeds [OUT.json]

The same requests in the same engine with engine.request_seeds true and false, in rounds that alternate;
the ratio is the median over rounds.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict

from music_ray.bench.record import write_facts
from music_ray.bench.replay import speed_ratio
from music_ray.bench.sampling import REQUESTS, TOKENS, tokens_per_second
from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.vllm_local import VllmEngine
from music_ray.models import DEMO_MODEL
from music_ray.progress import quieten_libraries, say

ROUNDS = 7
SAMPLING = SamplingConfig(temperature=0.5, top_p=1.0, max_tokens=TOKENS)


def main() -> None:
    """Runs all rounds, prints the ratio, and writes it as JSON where a path is given."""
    quieten_libraries()
    seeded = EngineConfig(model=DEMO_MODEL, max_model_len=512, max_num_seqs=REQUESTS, enforce_eager=True)
    configs = {True: seeded, False: seeded.model_copy(update={"request_seeds": False})}
    engine = VllmEngine(seeded)
    asyncio.run(tokens_per_second(engine, SAMPLING, 0))  # warm-up
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for with_seeds in (True, False) if number % 2 else (False, True):
            engine.config = configs[with_seeds]
            # Prompts of its own, or the second of a round would find the first one's in the cache.
            start = 1000 * (2 * number + with_seeds + 1)
            rate = asyncio.run(tokens_per_second(engine, SAMPLING, start))
            seconds[with_seeds].append(1 / rate)
            say(f"round {number + 1}/{ROUNDS}: request_seeds {with_seeds}: {rate:.0f} tokens/s")
    engine.close()
    ratio = speed_ratio(seconds[True], seconds[False])
    say(f"with seeds, of the speed without: {ratio}")
    if len(sys.argv) > 1:
        facts = {"rounds": ROUNDS, "requests": REQUESTS, "tokens": TOKENS, "seeded_over_plain": asdict(ratio)}
        write_facts(sys.argv[1], facts)


if __name__ == "__main__":
    main()
