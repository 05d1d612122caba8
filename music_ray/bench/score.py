"""Scores by vLLM's pooling runner beside a batched loop of transformers, in one run.

    python -m music_ray.bench.score [--pairs N] [--rounds N] [--batch-sizes 4,8,16,32] [--out FILE.json]

Both are what `music-ray score` runs in its actors, each in a process of its own that is idle while the
other works: same model (the demo model with a random head), same token ids, float32, a thread for
each core. transformers gets the batch size at which a first pass was fastest, and its conversations sorted
by length. Rounds alternate; every one begins with an empty prefix cache. `both sides` has two
conversations of each pair, which begin alike; `chosen sides` has one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import asdict
from importlib import resources
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from music_ray.bench.record import write_facts
from music_ray.bench.replay import Ratio, speed_ratio
from music_ray.config import RunConfig
from music_ray.models import DEMO_MODEL, resolve_model
from music_ray.progress import duration, quieten_libraries, say
from music_ray.score.model import open_model
from music_ray.score.settings import scoring_config

VLLM, HUGGINGFACE = "vllm", "huggingface"
BOTH, CHOSEN = "both sides", "chosen sides"
TARGET = 1.5
"""Least speed of vLLM over transformers, both sides of pairs."""
_WARM_UP = 4


class Contender:
    """A process with a loaded scorer."""

    def __init__(self, config: RunConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, config.model_dump_json())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.start_seconds: float
        """From the start of the process to the loaded model, imports included."""
        self.start_seconds, self.threads = self._connection.recv()

    def run(self, conversations: list[list[int]], batch_size: int = 1) -> dict[str, Any]:
        """Scores them all: seconds, scores, cached (tokens).

        Args:
            batch_size: huggingface only.
        """
        self._connection.send((conversations, batch_size))
        return self._connection.recv()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()


def _serve(connection: Connection, config_json: str) -> None:
    started = time.perf_counter()
    quieten_libraries()
    import torch

    from music_ray.score.scorers import HuggingFaceScorer, VllmScorer, make_scorer

    config = RunConfig.model_validate_json(config_json)
    scorer = make_scorer(config)
    connection.send((time.perf_counter() - started, torch.get_num_threads()))

    async def score_all(conversations: list[list[int]]) -> list[Any]:
        return await asyncio.gather(*(scorer.score(one) for one in conversations))

    while True:
        try:
            conversations, batch_size = connection.recv()
        except EOFError:
            break
        if isinstance(scorer, VllmScorer):
            scorer.forget_prefixes()
        began = time.perf_counter()
        if isinstance(scorer, HuggingFaceScorer):  # all of it sorted by length at once, as a script would
            scores, cached = scorer.submit(conversations, batch_size).result(), 0
        else:
            found = asyncio.run(score_all(conversations))
            scores, cached = [one.score for one in found], sum(one.cached_tokens for one in found)
        connection.send({"seconds": time.perf_counter() - began, "scores": scores, "cached": cached})
    scorer.close()


def make_reward_folder(folder: Path) -> Path:
    """The demo model with a random reward head, as training's export writes it."""
    from music_ray import reward_model
    from music_ray.chat import ChatFormat

    base = resolve_model(DEMO_MODEL)
    reward_model.load_reward_model(base).save_pretrained(folder)
    ChatFormat.load(base).tokenizer.save_pretrained(folder)
    return folder


def sample_conversations(folder: str, pairs: int) -> dict[str, list[list[int]]]:
    """Token ids of the shipped sample's first pairs."""
    from music_ray.chat import ChatFormat

    chat = ChatFormat.load(folder)
    files = sorted((resources.files("music_ray") / "samples").iterdir(), key=lambda one: one.name)
    lines = [line for file in files if file.name.endswith(".jsonl") for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines[:pairs]]
    chosen = [chat.conversation_ids(row["chosen"]) for row in rows]
    rejected = [chat.conversation_ids(row["rejected"]) for row in rows]
    return {BOTH: [side for pair in zip(chosen, rejected, strict=True) for side in pair], CHOSEN: chosen}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds of both: seconds, and what is needed to judge them."""
    model = open_model(str(folder))
    words = [f"engine.max_model_len={options.max_model_len}", f"engine.enforce_eager={options.eager}".lower()]
    contenders = {
        name: Contender(scoring_config(model, "bench", [*words, f"score.engine={name}"]))
        for name in (HUGGINGFACE, VLLM)
    }
    sets = sample_conversations(str(folder), options.pairs)
    contenders[VLLM].run(sets[BOTH][:_WARM_UP])
    tried = {size: contenders[HUGGINGFACE].run(sets[BOTH], size)["seconds"] for size in options.batch_sizes}
    best = min(tried, key=tried.__getitem__)
    say("huggingface, seconds by batch size: " + ", ".join(f"{size}: {s:.1f}" for size, s in tried.items()))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {VLLM: [], HUGGINGFACE: []} for name in sets}
    for number in range(options.rounds):
        for name, conversations in sets.items():
            for who in (VLLM, HUGGINGFACE) if number % 2 == 0 else (HUGGINGFACE, VLLM):
                found[name][who].append(contenders[who].run(conversations, best))
        shown = (
            f"{name}, {who} {rounds[-1]['seconds']:.1f} s"
            for name, by_whom in found.items()
            for who, rounds in by_whom.items()
        )
        say(f"round {number + 1}/{options.rounds}: {'; '.join(shown)}")
    starts = {name: one.start_seconds for name, one in contenders.items()}
    for one in contenders.values():
        one.close()
    (threads,) = {one.threads for one in contenders.values()}
    facts = {"starts": starts, "threads": threads, "batch_size": best, "batch_sizes": tried}
    return {"found": found, "sets": sets, **facts}


def table(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a set of conversations: rates, the ratio with its spread, and how far the scores differ."""
    rows = []
    for name, found in measured["found"].items():
        seconds = {who: [one["seconds"] for one in rounds] for who, rounds in found.items()}
        tokens = sum(len(ids) for ids in measured["sets"][name])
        ratio: Ratio = speed_ratio(seconds[VLLM], seconds[HUGGINGFACE])
        scores = [found[who][0]["scores"] for who in (VLLM, HUGGINGFACE)]
        rows.append(
            {
                "conversations": name,
                "number": len(measured["sets"][name]),
                "tokens": tokens,
                "seconds": seconds,
                "tokens_per_second": {who: tokens / statistics.median(took) for who, took in seconds.items()},
                "cached_share": found[VLLM][-1]["cached"] / tokens,
                "vllm_over_huggingface": asdict(ratio),
                "largest_difference": max(abs(a - b) for a, b in zip(*scores, strict=True)),
            }
        )
    return rows


def tell(rows: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    """Prints the table."""
    say(f"{'':14} {'number':>7} {'tokens':>7} {'vLLM t/s':>9} {'HF t/s':>7} {'cached':>7}   vLLM over HF")
    for row in rows:
        rates, ratio = row["tokens_per_second"], Ratio(**row["vllm_over_huggingface"])
        say(
            f"{row['conversations']:14} {row['number']:7} {row['tokens']:7} {rates[VLLM]:9.0f} "
            f"{rates[HUGGINGFACE]:7.0f} {row['cached_share']:7.0%}   {ratio}"
        )
    both = rows[0]["vllm_over_huggingface"]["median"]
    say(f"target {TARGET} for {BOTH}: {'met' if both >= TARGET else 'missed'}")
    starts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in measured["starts"].items())
    worst = max(row["largest_difference"] for row in rows)
    say(f"batch size {measured['batch_size']}; ready after: {starts}; scores differ by up to {worst:.1e}")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m music_ray.bench.score")
    parser.add_argument("--pairs", type=int, default=68, help="of the shipped sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--eager", action="store_true", help="vLLM without torch.compile")
    parser.add_argument("--out", default="runs/bench/score.json")
    parser.add_argument(
        "--batch-sizes",
        type=lambda text: [int(one) for one in text.split(",")],
        default=[4, 8, 16, 32],
        help="of transformers; the fastest is used",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Measures, prints the table, and writes it as JSON."""
    options = parse_options()
    quieten_libraries()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="music-ray-score-") as scratch:
        measured = measure(options, make_reward_folder(Path(scratch) / "model"))
    rows = table(measured)
    tell(rows, measured)
    facts = {
        "options": vars(options),
        "cores": len(os.sched_getaffinity(0)),
        "target": TARGET,
        "rows": rows,
        **{name: measured[name] for name in ("starts", "threads", "batch_size", "batch_sizes")},
        "seconds": time.perf_counter() - began,
    }
    write_facts(options.out, facts)


if __name__ == "__main__":
    main()
