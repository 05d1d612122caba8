"""Rollouts against other ways of making the same tokens with the same vLLM, in one run.

    python -m music_ray.bench.generate [--seeds N] [--rounds N] [--ray-rounds N] [--out FILE.json] …

Ours rolls out all seeds at once and records every request. The peers then make the very same requests,
with the same numbers of tokens: (a) vLLM's LLM.generate with all prompts at once, with and without its
prefix cache; (b) LLM.generate once a half-turn, a barrier each; (c) ray.data.llm, a processor a half-turn.
The peers get ready token ids: what templates and bookkeeping cost is counted for ours alone. Rounds
alternate, every round has its own questions, and every measurement begins with an empty prefix cache.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from dataclasses import asdict
from typing import Any

from music_ray.bench.peers import Peer, measured_outputs, serve_llm, serve_ray
from music_ray.bench.record import write_facts
from music_ray.bench.replay import Measured, Request, half_turns, planned_tokens, questions, speed_ratio
from music_ray.config import EngineConfig, RunConfig, SamplingConfig
from music_ray.config.load import resolve_config
from music_ray.engines.base import Completion, Prompt, RoleEngines
from music_ray.engines.vllm_local import Core, VllmEngine
from music_ray.engines.vllm_settings import engine_arguments
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.models import DEMO_MODEL
from music_ray.progress import duration, quieten_libraries, say
from music_ray.schema import SeedContext, content_id, conversation_hash

OURS = "ours: roll_out, all seeds at once"
CACHED = "(a) LLM.generate, all at once, prefix cache"
UNCACHED = "(a) LLM.generate, all at once, no prefix cache"
BARRIERS = "(b) LLM.generate, a barrier each half-turn"
RAY = "(c) ray.data.llm, a processor each half-turn"
TARGETS = {CACHED: 0.90, UNCACHED: 0.90, BARRIERS: 1.3, RAY: 1.5}
"""Least speed of ours over each peer's."""


class RecordingEngine(VllmEngine):
    """Our engine, whose requests generate as many tokens as planned, and which keeps them all."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._stop_ids = []
        self._steps: dict[int, int] = {}
        self.core: _Recorder = _Recorder(self.core, self._steps)

    def params(self, sampling: SamplingConfig, seed: int) -> Any:
        """As planned for the seed, and never less."""
        params = super().params(sampling, seed)
        params.max_tokens = planned_tokens(seed, sampling.max_tokens)
        params.ignore_eos = True
        return params

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate."""
        replies = sum(message["role"] == "assistant" for message in prompt.messages)
        self._steps[seed] = 2 * replies + (prompt.speaker == "assistant")
        return await super().generate(prompt, sampling, seed)


class _Recorder:
    """The engine's core; it keeps what was asked, and counts."""

    def __init__(self, core: Core, steps: dict[int, int]) -> None:
        self._core, self._steps = core, steps
        self.commit, self.close = core.commit, core.close
        self.forget()

    def forget(self) -> None:
        self.requests: list[Request] = []
        self.outputs: list[Any] = []

    def forget_prefixes(self) -> None:
        self._core.forget_prefixes()

    async def answer(self, token_ids: list[int], params: Any) -> Any:
        output = await self._core.answer(token_ids, params)
        step = self._steps[params.seed]
        self.requests.append(Request(token_ids, params.max_tokens, params.seed, params.temperature, step))
        self.outputs.append(output)
        return output


def run_config(options: argparse.Namespace) -> RunConfig:
    """The run that is measured: short replies, the user by template, contrasts from neighbours."""
    return resolve_config(
        {
            "name": "bench-generate",
            "engine": {
                "model": options.model,
                "max_model_len": options.max_model_len,
                "max_num_seqs": options.max_num_seqs,
                "enforce_eager": True,
                "arrangement": "in_process",
            },
            "user": {
                "mode": "template",
                "max_attempts": 1,
                "sampling": {"temperature": 0.6, "top_p": 1.0, "max_tokens": options.user_tokens},
            },
            "assistant": {"sampling": {"temperature": 0.4, "top_p": 1.0, "max_tokens": options.reply_tokens}},
            "contrast": {"mode": "neighbour", "schedule": "all"},
            "generate": {"turns": options.turns},
        }
    )


def roll_out_all(engine: RecordingEngine, config: RunConfig, first: int, number: int) -> Measured:
    """Rolls out `number` seeds from question `first` on; the engine keeps their requests."""
    engine.core.forget_prefixes()
    engine.core.forget()
    asked = questions(number, first)
    pool = NeighbourPool(asked, config.contrast.max_similarity)
    cast = Cast.of(config, RoleEngines.same(engine), pool, run_epoch=1)
    seeds = [_seed(question) for question in asked]

    async def all_of_them() -> None:
        await asyncio.gather(*(roll_out(seed, cast) for seed in seeds))

    began = time.perf_counter()
    asyncio.run(all_of_them())
    seconds = time.perf_counter() - began
    return measured_outputs(seconds, engine.core.outputs)


def _seed(question: str) -> SeedContext:
    messages: list[Any] = [{"role": "user", "content": question}]
    return SeedContext(content_id(messages), "bench", "p", conversation_hash(messages), messages)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all contenders: seconds and token counts of each, and what starting took."""
    config = run_config(options)
    began = time.perf_counter()
    engine = RecordingEngine(config.engine)
    starts = {OURS: time.perf_counter() - began}
    arguments = engine_arguments(config.engine, engine.model, engine.settings)
    peers = {
        CACHED: Peer(serve_llm, arguments),
        UNCACHED: Peer(serve_llm, arguments | {"enable_prefix_caching": False}),
    }
    starts |= {name: peer.start_seconds for name, peer in peers.items()}
    roll_out_all(engine, config, 0, 2)  # warm-up
    found: dict[str, list[Measured]] = {name: [] for name in (OURS, CACHED, UNCACHED, BARRIERS)}
    recorded: list[list[list[Request]]] = []
    for number in range(options.rounds):
        found[OURS].append(roll_out_all(engine, config, 2 + number * options.seeds, options.seeds))
        requests, barriers = list(engine.core.requests), half_turns(engine.core.requests)
        recorded.append(barriers)
        found[CACHED].append(peers[CACHED].run([requests]))
        found[BARRIERS].append(peers[CACHED].run(barriers))
        found[UNCACHED].append(peers[UNCACHED].run([requests]))
        say(
            f"round {number + 1}/{options.rounds}: {len(requests)} requests, "
            + ", ".join(f"{name.split(':')[0]} {rounds[-1].seconds:.1f} s" for name, rounds in found.items())
        )
    for peer in peers.values():
        peer.close()
    engine.close()
    ray_error = _measure_ray(arguments, recorded[: options.ray_rounds], found, starts)
    for rounds in found.values():  # the peers made what we made, to the token
        for ours, theirs in zip(found[OURS], rounds, strict=False):
            assert theirs.completion_tokens == ours.completion_tokens
    return {"found": found, "starts": starts, "ray_error": ray_error, "settings": asdict(engine.settings)}


def _measure_ray(
    arguments: dict[str, Any],
    recorded: list[list[list[Request]]],
    found: dict[str, list[Measured]],
    starts: dict[str, float],
) -> str:
    """ray.data.llm last and alone: every half-turn starts an engine. Returns why it does not run."""
    if not recorded:
        return "not asked for (--ray-rounds 0)"
    try:
        peer = Peer(serve_ray, arguments)
        starts[RAY] = peer.start_seconds
        found[RAY] = [peer.run(barriers) for barriers in recorded]
        peer.close()
    except RuntimeError as error:
        found.pop(RAY, None)
        return str(error)
    return ""


def table(measured: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One row a contender: rates, cache hits and, for peers, how fast ours is beside it."""
    found: dict[str, list[Measured]] = measured["found"]
    ours = [one.seconds for one in found[OURS]]
    rows = {}
    for name, rounds in found.items():
        seconds = [one.seconds for one in rounds]
        row: dict[str, Any] = {
            "seconds": seconds,
            "tokens_per_second": statistics.median(one.completion_tokens / one.seconds for one in rounds),
            "cache_hit_rate": statistics.median(one.hit_rate for one in rounds) if name != RAY else None,
            "completion_tokens": [one.completion_tokens for one in rounds],
            "prompt_tokens": [one.prompt_tokens for one in rounds],
            "start_seconds": measured["starts"].get(name),
        }
        if name in TARGETS:
            ratio = speed_ratio(ours[: len(seconds)], seconds)
            row |= {"ours_over_it": asdict(ratio), "target": TARGETS[name]}
            row["met"] = ratio.median >= TARGETS[name]
        rows[name] = row
    return rows


def tell(rows: dict[str, dict[str, Any]], ray_error: str) -> None:
    """Prints the table."""
    say(f"{'':48} {'tokens/s':>9} {'cached':>7} {'start':>8}   ours over it")
    for name, row in rows.items():
        hits = "" if row["cache_hit_rate"] is None else f"{row['cache_hit_rate']:.0%}"
        start = "" if row["start_seconds"] is None else duration(row["start_seconds"])
        line = f"{name:48} {row['tokens_per_second']:9.0f} {hits:>7} {start:>8}"
        if ratio := row.get("ours_over_it"):
            line += f"   {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            line += f"  (target {row['target']:.2f}: {'met' if row['met'] else 'missed'})"
        say(line)
    if ray_error:
        say(f"{RAY}: no numbers: {ray_error}")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m music_ray.bench.generate")
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--max-num-seqs", type=int, default=8)
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=32, help="a round; 4 times max-num-seqs or more")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--reply-tokens", type=int, default=48, help="longest reply; the mean is a quarter")
    parser.add_argument("--user-tokens", type=int, default=24, help="longest user message, likewise")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray-rounds", type=int, default=1, help="rounds of ray.data.llm; 0 leaves it out")
    parser.add_argument("--out", default="runs/bench/generate.json")
    options = parser.parse_args(arguments)
    if options.seeds < 4 * options.max_num_seqs:
        parser.error(f"--seeds ({options.seeds}) is below 4 times --max-num-seqs ({options.max_num_seqs})")
    if options.ray_rounds > options.rounds:
        parser.error(f"--ray-rounds ({options.ray_rounds}) exceeds --rounds ({options.rounds})")
    return options


def main() -> None:
    """Measures, prints the table, and writes it as JSON."""
    options = parse_options()
    quieten_libraries()
    began = time.perf_counter()
    measured = measure(options)
    rows = table(measured)
    tell(rows, measured["ray_error"])
    facts = {
        "options": vars(options),
        "cores": len(os.sched_getaffinity(0)),
        "settings": measured["settings"],
        "contenders": rows,
        "ray_error": measured["ray_error"],
        "seconds": time.perf_counter() - began,
    }
    write_facts(options.out, facts)


if __name__ == "__main__":
    main()
