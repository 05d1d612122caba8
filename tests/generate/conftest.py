"""What the tests of seeds, pairs and mix share: run folders, sources and rollouts made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from music_ray import schema
from music_ray.config.load import resolve_config
from music_ray.rundir import RunDir
from music_ray.schema import Call, Contrast, Message, Rollout


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    """make_run(data={…}, seeds={…}): a run folder in a temporary place."""

    def make(name: str = "run", **sections: Any) -> RunDir:
        return RunDir(resolve_config({"name": name, "runs_dir": str(tmp_path / "runs"), **sections}))

    return make


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., str]:
    """write_jsonl(row, row, name=…): the path of a JSON-lines file; bytes are written as they are."""

    def write(*rows: Any, name: str = "data.jsonl") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)

    return write


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    """make_rollout(id, chosen=…, rejected=…, …): a rollout of two turns whose last reply is contrasted."""

    def make(
        seed: int, chosen: list[str] | None = None, rejected: list[str] | None = None, **other: Any
    ) -> Rollout:
        context: list[Message] = [{"role": "user", "content": f"Question {seed}?"}]
        chosen = ["A first answer.", "And then?", f"A good answer to {seed}."] if chosen is None else chosen
        rejected = (
            ["A first answer.", "And then?", f"Something else than {seed}."] if rejected is None else rejected
        )
        values: dict[str, Any] = {
            "id": seed,
            "source": "tests",
            "conversation": seed + 1000,
            "status": "ok",
            "reason": "",
            "detail": "",
            "context": context,
            "chosen": context + _replies(chosen),
            "rejected": context + _replies(rejected),
            "num_generated_turns": (len(chosen) + 1) // 2,
            "first_contrast_turn": 2,
            "contrasts": [Contrast(2, "And then?", "Say something else.", "joint", 1)],
            "calls": [],
            "engine": "scripted",
            "model": "a-model",
            "model_revision": "",
            "prompt_hash": "abc",
            "run_epoch": 1,
            "seconds": 0.1,
        }
        return Rollout(**{**values, **other})

    return make


def _replies(texts: list[str]) -> list[Message]:
    roles = ("assistant", "user")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


@pytest.fixture
def make_call() -> Callable[..., Call]:
    """make_call(turn, branch, role, finish_reason, recorded)."""

    def make(
        turn: int,
        branch: Any = "chosen",
        role: Any = "assistant",
        finish: str = "length",
        recorded: bool = True,
    ) -> Call:
        return Call(turn, branch, role, 0, 10, 0, 64, finish, recorded)

    return make


@pytest.fixture
def write_shard() -> Callable[..., None]:
    """write_shard(run, name, rollouts): one shard of the generate stage."""

    def write(run: RunDir, name: str, rollouts: list[Rollout]) -> None:
        table = schema.to_table(rollouts, schema.ROLLOUT_SCHEMA)
        run.write_table(table, "rollouts", "shards", f"{name}.parquet")

    return write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout."""
    folder = Path(__file__).parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the shared development data at {folder}")
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of faults, where tests made some."""
    from tests.generate.faults import OUTCOMES, table

    if OUTCOMES:
        terminalreporter.section("faults")
        for line in table():
            terminalreporter.write_line(line)
