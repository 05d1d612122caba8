"""Ctrl-C while the workers train: the driver asks for a checkpoint, all ranks save it together, and end.

The driver asks with a file in the run folder, which every worker sees wherever it runs. Without this, what
was done since the last checkpoint (train.checkpoint_every) would be paid for twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from music_ray import run_lock
from music_ray.progress import say
from music_ray.reward import checkpoint
from music_ray.reward.logbook import read_log
from music_ray.rundir import RunDir

OUTCOME = ("checkpoints", "outcome.json")
"""What rank 0 tells the driver at the end."""
STOP = ("checkpoints", "stop")
"""That it is there is the question."""
_LOOK_EVERY_SECONDS = 2.0
_ASK_STORE_EVERY_SECONDS = 15.0
"""The same where the run folder is behind a URI, where each look is a request."""


class InterruptWatch:
    """Looks after each step whether the driver wants the training to end; one answer for all ranks."""

    def __init__(self, run: RunDir, device: Any = "cpu") -> None:
        self._run, self._device = run, device
        self._every_seconds = _LOOK_EVERY_SECONDS if run.is_local else _ASK_STORE_EVERY_SECONDS
        self._looked = float("-inf")

    def wanted(self) -> bool:
        """Whether to save a checkpoint now and end. Collective: every rank calls it after the same step."""
        import torch
        import torch.distributed as dist

        answer = torch.tensor([int(dist.get_rank() == 0 and self._is_asked())], device=self._device)
        dist.broadcast(answer, src=0)
        return bool(answer.item())

    def _is_asked(self) -> bool:
        if time.monotonic() - self._looked < self._every_seconds:
            return False
        self._looked = time.monotonic()
        try:
            return self._run.exists(*STOP)
        except OSError:  # a store that is away for a moment must not end the training: the next look tells
            return False


def forget_interrupt(run: RunDir) -> None:
    """Takes back what an earlier driver asked for."""
    if run.exists(*STOP):
        run.fs.delete_file(run.path(*STOP))


def save_before_the_end(run: RunDir, ended: threading.Event, follow: Callable[[], None]) -> None:
    """Asks the workers for a checkpoint and waits until they have ended, if there are steps to lose.

    Not where another driver has taken the run over: its workers save there now.

    Args:
        ended: set when the workers have ended.
        follow: tells what happens until then.
    """
    if ended.is_set() or run_lock.TAKEN_OVER.is_set():
        return
    lines, saved = read_log(run), checkpoint.complete_steps(run)
    if not lines or lines[-1]["step"] <= max(saved, default=0):
        return
    say("train: saving a checkpoint before it ends; Ctrl-C again ends it at once, without")
    run.write_text("", *STOP)
    follow()
    now = checkpoint.complete_steps(run)
    if now[-1:] != saved[-1:]:
        say(f"train: the checkpoint of step {now[-1]} is saved")
    else:
        say(f"train: no checkpoint could be saved ({_why(run)})")


def _why(run: RunDir) -> str:
    if not run.exists(*OUTCOME):
        return "the workers are gone"
    return str(json.loads(run.read_text(*OUTCOME)).get("message", "all steps were done"))
