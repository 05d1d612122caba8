"""The training's logs, by rank 0: train.jsonl, evaluation.jsonl, pairs.jsonl and TensorBoard.

A local file grows by a line a step. An object store can't append, so there train.jsonl is written anew
every few seconds, and all of them when the book is flushed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from music_ray.progress import say
from music_ray.reward.metrics import StepResult
from music_ray.reward.validate import ValidationResult
from music_ray.rundir import RunDir
from music_ray.storage import patiently

LOG = ("logs", "train.jsonl")
EVALUATIONS = ("logs", "evaluation.jsonl")
PAIRS = ("logs", "pairs.jsonl")
_UPLOAD_SECONDS = 15.0
_NUM_BOARD_SOURCES = 20
"""TensorBoard shows no more sources than these: a chart each for hundreds of them would help nobody."""


class Logbook:
    """The logs of one start; lines of steps that a resume repeats are taken out."""

    def __init__(self, run: RunDir, finished_steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run = run
        self._steps = _Lines(run, LOG, finished_steps)
        self._evaluations = _Lines(run, EVALUATIONS, finished_steps)
        self._pairs = _Lines(run, PAIRS, finished_steps)
        self._uploaded = time.monotonic()
        self._boards = Path(
            run.path("logs", "tensorboard") if run.is_local else tempfile.mkdtemp(prefix="music-ray-")
        )
        self._board = SummaryWriter(str(self._boards), purge_step=finished_steps + 1)

    def add(self, step: int, result: StepResult, ids: Sequence[str] = ()) -> None:
        """Notes a finished step (steps count from 1) and the ids of its pairs, in the stream's order."""
        line = _rounded({"step": step, **asdict(result)})
        self._steps.add(line)
        self._pairs.add({"step": step, "ids": list(ids)})
        for name, value in _scalars(line):
            self._board.add_scalar(name, value, step)
        if not self.run.is_local and time.monotonic() - self._uploaded > _UPLOAD_SECONDS:
            self._upload_if_possible(self._steps)
            self._uploaded = time.monotonic()

    def add_evaluation(self, result: ValidationResult) -> None:
        """Notes what the model scored on the held-out pairs."""
        suites = {name: _rounded(asdict(suite)) for name, suite in result.suites.items()}
        self._evaluations.add({"step": result.step, "suites": suites, "best": result.is_best})
        self._upload_if_possible(self._evaluations)  # the driver tells of it, and they are few
        for name, suite in suites.items():
            for key in ("accuracy", "loss", "margin"):
                self._board.add_scalar(f"evaluation/{name}/{key}", suite[key], result.step)

    def _upload_if_possible(self, lines: _Lines) -> None:
        """A store that is away does not end the training: the next upload, or a checkpoint's, has it all."""
        try:
            lines.upload()
        except OSError as error:
            say(f"train: {lines.parts[-1]} could not be sent ({error}), it goes with the next")

    def flush(self) -> None:
        """Sees to it that all that was noted is in the run folder.

        To be called before a checkpoint is saved: a resume goes on from the checkpoint, and the lines of
        the steps up to there must not be lost.
        """
        self._board.flush()
        if self.run.is_local:
            return
        patiently(self._upload_all, "train: the logs")
        self._uploaded = time.monotonic()

    def _upload_all(self) -> None:
        for lines in (self._steps, self._evaluations, self._pairs):
            lines.upload()
        for file in self._boards.iterdir():
            self.run.write_bytes(file.read_bytes(), "logs", "tensorboard", file.name)

    def close(self) -> None:
        """Writes what is left and ends the TensorBoard file."""
        self.flush()
        self._board.close()
        if not self.run.is_local:
            shutil.rmtree(self._boards)


class _Lines:
    """A file of JSON lines, one a step."""

    def __init__(self, run: RunDir, parts: tuple[str, ...], finished_steps: int) -> None:
        self.run, self.parts = run, parts
        self._text = [json.dumps(one) + "\n" for one in read_log(run, parts) if one["step"] <= finished_steps]
        self._sent = len(self._text)
        if self._text or run.exists(*parts):
            run.write_text("".join(self._text), *parts)
        if run.is_local:
            Path(run.path(*parts)).parent.mkdir(parents=True, exist_ok=True)
            self._text.clear()  # the file has them, and grows on its own

    def add(self, line: dict[str, Any]) -> None:
        """Appends a line; in an object store it is there after the next upload."""
        text = json.dumps(line) + "\n"
        if self.run.is_local:
            with Path(self.run.path(*self.parts)).open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            self._text.append(text)

    def upload(self) -> None:
        """Writes the whole file to the object store, if it has grown."""
        if not self.run.is_local and len(self._text) != self._sent:
            self.run.write_text("".join(self._text), *self.parts)
            self._sent = len(self._text)


def read_log(run: RunDir, parts: tuple[str, ...] = LOG) -> list[dict[str, Any]]:
    """The complete lines of a log, in the order they were written."""
    if not run.exists(*parts):
        return []
    complete, _, _ = run.read_text(*parts).rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def count_pairs(run: RunDir) -> Counter[str]:
    """How often each pair was trained on, by id: what pairs.jsonl is for."""
    return Counter(one for line in read_log(run, PAIRS) for one in line["ids"])


def _scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """TensorBoard's names and values of a step's line."""
    for name, value in line.items():
        if isinstance(value, int | float) and name not in ("step", "pairs"):
            yield f"train/{name}", value
    groups = [(f"origin/{name}", group) for name, group in line["by_origin"].items()]
    groups += [(f"source/{name}", group) for name, group in sorted(line["by_source"].items())][
        :_NUM_BOARD_SOURCES
    ]
    for name, group in groups:
        yield from ((f"{name}/{key}", group[key]) for key in ("accuracy", "loss", "margin"))


def _rounded(value: Any) -> Any:
    """Floats with 8 significant digits: float32 has no more."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.8g}") if isinstance(value, float) else value
