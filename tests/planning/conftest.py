"""Run folders as the stages leave them, with seeds from a file and rollouts on a scripted engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from music_ray.config.load import resolve_config
from music_ray.engines.base import Completion, RoleEngines
from music_ray.engines.scripted import ScriptedEngine
from music_ray.generate.rollout import Cast, roll_out
from music_ray.generate.seeds import run_seeds
from music_ray.jobs.usage import write_usage
from music_ray.rundir import RunDir
from music_ray.schema import ROLLOUT_SCHEMA, Rollout, seed_from_row, to_table

NUM_PAIRS = 120
QUESTION, CHOSEN, REJECTED = 40, 120, 80
"""Characters of each pair's messages: 15, 35 and 25 tokens by the plan's rule."""

MakeRun = Callable[..., RunDir]


def padded(text: str, characters: int) -> str:
    """A text of exactly so many characters."""
    return (text + " " + "x" * characters)[:characters]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Opens a run of a file of pairs; of the same folder each time."""
    lines = []
    for number in range(NUM_PAIRS):
        question = {"role": "user", "content": padded(f"Question {number}?", QUESTION)}
        sides = {
            name: [question, {"role": "assistant", "content": padded(f"{name} {number}", size)}]
            for name, size in (("chosen", CHOSEN), ("rejected", REJECTED))
        }
        lines.append(json.dumps(sides))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")

    def make(**sections: Any) -> RunDir:
        values: dict[str, Any] = {
            "name": "planned",
            "runs_dir": str(tmp_path / "runs"),
            "data": {"sources": [{"path": str(tmp_path / "pairs.jsonl")}], "held_out_fraction": 0.0},
            "engine": {"kind": "scripted"},
            "user": {"mode": "template", "sampling": {"max_tokens": 40}},
            "assistant": {"sampling": {"max_tokens": 100}},
            "contrast": {"mode": "neighbour"},
            "generate": {"turns": 2},
        }
        return RunDir(resolve_config(values | sections))

    return make


def add_seeds(run: RunDir) -> None:
    """Runs the seeds stage."""
    run.open()
    run.start_stage("seeds")
    facts = run_seeds(run, count_tokens=lambda messages: 1)
    run.finish_stage("seeds", facts.pop("output"), 1.0, **facts)


def add_rollouts(run: RunDir, number: int, *, seconds: float = 0.0) -> list[Rollout]:
    """Rolls the first seeds out; of the calls every tenth assistant's is twice as long."""
    engine = ScriptedEngine(_script)
    cast = Cast.of(run.config, RoleEngines.same(engine), _Neighbours(), run_epoch=1)  # type: ignore[arg-type]
    seeds = [seed_from_row(row) for row in run.read_rows("seeds", "contexts")][:number]
    rows = [asyncio.run(roll_out(seed, cast)) for seed in seeds]
    run.write_table(to_table(rows, ROLLOUT_SCHEMA), "rollouts", "shards", "e0001-a.parquet")
    if seconds:
        write_usage(run, "generate", 1, {"engine_seconds": seconds})
    return rows


def _script(prompt: Any, sampling: Any, seed: int) -> Completion:
    if prompt.speaker == "user":
        return Completion(f"and {seed}?", "stop", 100, 64, 10)
    return Completion(f"reply {seed}", "stop", 100, 64, 40 if seed % 10 == 0 else 20)


class _Neighbours:
    """A pool that always has another message."""

    def draw(self, message: str, *key: object) -> str:
        return "something quite different"
