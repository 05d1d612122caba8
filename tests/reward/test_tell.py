"""What the driver says while the workers train, and how often it reads their logs for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from music_ray.reward import tell
from music_ray.reward.logbook import EVALUATIONS, Logbook, read_log
from music_ray.rundir import RunDir
from tests.reward.test_logbook import evaluation, result
from tests.reward.zero3_ranks import object_store


class Training(threading.Thread):
    """Notes steps as rank 0 does, each when it is told to, and ends."""

    def __init__(self, run: RunDir, book: Logbook) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.book = run, book
        self.seconds = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        time.sleep(self.seconds)
        for step in (3, 4):
            self.book.add(step, result(loss=step))
        self.book.add_evaluation(evaluation(4))
        self.book.flush()
        self.ended.set()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Which logs were read, one entry a time."""
    found: list[tuple[str, ...]] = []

    def read(run: RunDir, parts: tuple[str, ...] = ("logs", "train.jsonl")) -> list[dict[str, Any]]:
        found.append(parts)
        return read_log(run, parts)

    monkeypatch.setattr(tell, "read_log", read)
    return found


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "object store"])
def test_the_end_is_told_at_once_and_the_logs_are_read_seldom(
    make_run: Any,
    gemma2_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reads: list[tuple[str, ...]],
    remote: bool,
) -> None:
    if remote:
        monkeypatch.setattr("music_ray.rundir.open_filesystem", object_store)
    run = make_run(gemma2_folder)
    book = Logbook(run, 0)
    for step in (1, 2):
        book.add(step, result(loss=step))
    book.add_evaluation(evaluation(2))
    book.flush()
    training = Training(run, book)
    training.seconds = 1.0
    training.start()
    started = time.monotonic()
    tell.tell_steps(run, training.ended, None)
    assert 0.9 < time.monotonic() - started < 4.5  # between two reads lie 5 s, or 15
    # What stood there before the start of the evaluations, then at the start, and at the end.
    assert reads.count(EVALUATIONS) == 3 and len(reads) == 5
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" · ")[0] for line in lines] == [
        "train: step 2/4",
        "train: step 4/4",
        "train: held-out pairs after step 4/4",
    ]
    book.close()


def test_a_line_is_told_between_two_reads_and_each_step_once(
    make_run: Any,
    gemma2_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tell, "_READ_EVERY_SECONDS", 0.05)
    run = make_run(gemma2_folder)
    book = Logbook(run, 0)
    book.add(1, result())
    training = Training(run, book)
    training.seconds = 1.0
    training.start()
    tell.tell_steps(run, training.ended, None)
    book.close()
    told = [line for line in capsys.readouterr().out.splitlines() if "held-out" not in line]
    # Step 3 may have been read before step 4 was there.
    assert [line.split()[2] for line in told] in (["1/4", "4/4"], ["1/4", "3/4", "4/4"])
