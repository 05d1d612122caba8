"""logs/train.jsonl and TensorBoard: what rank 0 writes after each step.

A local file grows by a line a step. An object store can't append, so there the whole file is written
anew every few seconds and at each checkpoint.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from music_ray.reward.loop import StepResult
from music_ray.rundir import RunDir

LOG = ("logs", "train.jsonl")
_UPLOAD_SECONDS = 15.0


class Logbook:
    """The training log of one start; lines of steps that a resume repeats are taken out."""

    def __init__(self, run: RunDir, finished_steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run = run
        self.lines = [line for line in read_log(run) if line["step"] <= finished_steps]
        self._written = time.monotonic()
        run.write_text(self._text(), *LOG)
        self._boards = Path(
            run.path("logs", "tensorboard") if run.is_local else tempfile.mkdtemp(prefix="music-ray-")
        )
        self._board = SummaryWriter(str(self._boards), purge_step=finished_steps + 1)

    def add(self, step: int, result: StepResult) -> None:
        """Notes a finished step (steps count from 1)."""
        line = _rounded({"step": step, **asdict(result)})
        self.lines.append(line)
        for name, value in line.items():
            if name not in ("step", "pairs"):
                self._board.add_scalar(f"train/{name}", value, step)
        if self.run.is_local:
            with Path(self.run.path(*LOG)).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        elif time.monotonic() - self._written > _UPLOAD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sees to it that all that was noted is in the run folder."""
        self._board.flush()
        if self.run.is_local:
            return
        self._written = time.monotonic()
        self.run.write_text(self._text(), *LOG)
        for file in self._boards.iterdir():
            self.run.write_bytes(file.read_bytes(), "logs", "tensorboard", file.name)

    def close(self) -> None:
        """Writes what is left and ends the TensorBoard file."""
        self.flush()
        self._board.close()
        if not self.run.is_local:
            shutil.rmtree(self._boards)

    def _text(self) -> str:
        return "".join(json.dumps(line) + "\n" for line in self.lines)


def read_log(run: RunDir) -> list[dict[str, Any]]:
    """The complete lines of the training log, in the order they were written."""
    if not run.exists(*LOG):
        return []
    complete, _, _ = run.read_text(*LOG).rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def _rounded(line: dict[str, Any]) -> dict[str, Any]:
    """Floats with 8 significant digits: float32 has no more."""
    return {key: float(f"{value:.8g}") if isinstance(value, float) else value for key, value in line.items()}
