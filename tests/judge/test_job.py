"""Questions as a job: what an actor of a driver that was killed can still do to it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from music_ray.config import SamplingConfig
from music_ray.config.load import resolve_config
from music_ray.jobs.ledger import FencedError, ShardWriter, open_epoch
from music_ray.judge import job as judging
from music_ray.judge.job import answer_pending, ask_judge, judge_config
from music_ray.judge.rows import VERDICT_SCHEMA, VerdictRow, verdict_folder
from music_ray.rundir import RunDir
from tests.judge.test_prompt import talk
from tests.judge.test_rows import ENGINE, ROW

SHARDS = verdict_folder(ENGINE, SamplingConfig())
QUESTIONS = [
    {"id": number, "seed_id": number, "chosen": talk("q", f"one {number}"), "rejected": talk("q", "other")}
    for number in range(4)
]


class Started:
    """Stands where the driver of a job on Ray stands: keeps what need not be done, and does the rest."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []

    def __call__(
        self, run: RunDir, job: Any, inputs: list[str], done: np.ndarray, *, total: int, watches: Any
    ) -> None:
        assert total == len(run.read_ids("judge", SHARDS[1], "in")) and list(done) == sorted(done)
        self.done.append(done.tolist())
        left = sorted({one["id"] for one in QUESTIONS} - set(done.tolist()))
        asyncio.run(write(run, job.run_epoch, *(replace(ROW, id=one) for one in left)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    job = Started()
    monkeypatch.setattr(judging, "run_job", job)
    monkeypatch.setattr(judging, "ensure_ray", lambda config: None)
    monkeypatch.setattr(judging, "check_pool", lambda *arguments: None)
    return job


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., RunDir]:
    """run_of(retry_errors=…): a run folder, in which the second start of a judge's job is about to begin."""

    def make(**generate: Any) -> RunDir:
        run = RunDir(resolve_config({"name": "r", "runs_dir": str(tmp_path), "generate": generate}))
        open_epoch(run, SHARDS, 1)
        return run

    return make


async def write(run: RunDir, epoch: int, *rows: VerdictRow) -> None:
    """As an actor of that start."""
    writer = ShardWriter(run, SHARDS, VERDICT_SCHEMA, epoch, flush_rows=len(rows) or 1, flush_seconds=9)
    writer.begin(len(rows))
    await asyncio.gather(*(writer.add(row) for row in rows))


def ask_after(flush: Callable[[], None]) -> Callable[..., None]:
    """Asks as the stages do; before it begins, what an older start's actor holds is flushed."""

    def ask(run: RunDir, *arguments: Any) -> None:
        flush()
        pool = judge_config(run.config, ENGINE, SamplingConfig())
        ask_judge(run, pool, *arguments, key="judge.engine", command="test")

    return ask


def test_an_answer_that_comes_before_the_fence_is_not_asked_for_again(started, run_of) -> None:
    run = run_of()

    def flush() -> None:
        error = replace(ROW, id=1, status="error", reason="rate_limited")
        asyncio.run(write(run, 1, replace(ROW, id=2), error, replace(ROW, id=99)))

    assert answer_pending(run, SHARDS, QUESTIONS, ask_after(flush)) == 4
    assert started.done == [[1, 2]], "of other questions nothing is said"
    rows = [row["id"] for row in run.read_rows(*SHARDS)]
    assert sorted(rows) == [0, 1, 2, 3, 99]


def test_what_is_tried_again_is_not_taken_for_done(started, run_of) -> None:
    run = run_of(retry_errors=True)
    error = replace(ROW, id=1, status="error", reason="rate_limited")
    answer_pending(run, SHARDS, QUESTIONS, ask_after(lambda: asyncio.run(write(run, 1, error))))
    assert started.done == [[]]


def test_no_engine_is_started_where_all_have_come(started, run_of) -> None:
    run = run_of()
    all_ = [replace(ROW, id=one["id"]) for one in QUESTIONS]
    answer_pending(run, SHARDS, QUESTIONS, ask_after(lambda: asyncio.run(write(run, 1, *all_))))
    assert started.done == []


def test_after_the_answers_are_looked_at_an_older_start_writes_none(started, run_of, monkeypatch) -> None:
    run = run_of()
    looked = []

    def read_index(*arguments: Any) -> Any:
        found = real(*arguments)
        with pytest.raises(FencedError):
            asyncio.run(write(run, 1, replace(ROW, id=3)))
        looked.append(found.ids.tolist())
        return found

    real = judging.read_index
    monkeypatch.setattr(judging, "read_index", read_index)
    answer_pending(run, SHARDS, QUESTIONS, ask_after(lambda: None))
    assert looked[0] == [] and started.done == [[]]
