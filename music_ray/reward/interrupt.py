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
"""That it is there is the question; rank 0 writes its answer there, before all ranks save."""
_ANSWER = "saving"
_LOOK_EVERY_SECONDS = 2.0
_ASK_STORE_EVERY_SECONDS = 15.0
"""The same where the run folder is behind a URI, where each look is a request."""
_PATIENCE_SECONDS = 60.0
"""So long, and as long as ten of the last steps, the driver waits for an answer while no step is made.
Workers that were lost may never come back: their node is away, or Ray Train waits for CPUs that nobody
gives free."""
_PATIENCE_WITH_STORE_SECONDS = 180.0


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
            if not self._run.exists(*STOP):
                return False
            self._run.write_text(_ANSWER, *STOP)
            return True
        except OSError:  # a store that is away for a moment must not end the training: the next look tells
            return False


def forget_interrupt(run: RunDir) -> None:
    """Takes back what an earlier driver asked for."""
    if run.exists(*STOP):
        run.fs.delete_file(run.path(*STOP))


def save_before_the_end(
    run: RunDir, ended: threading.Event, follow: Callable[[threading.Event], None]
) -> None:
    """Asks the workers for a checkpoint and waits until they have ended, if there are steps to lose.

    Not where another driver has taken the run over: its workers save there now. And no longer than a while
    where nobody answers and no step is made.

    Args:
        ended: set when the workers have ended.
        follow: tells what happens until the event that it is given is set.
    """
    if ended.is_set() or run_lock.TAKEN_OVER.is_set():
        return
    lines, saved = read_log(run), checkpoint.complete_steps(run)
    if not lines or lines[-1]["step"] <= max(saved, default=0):
        return
    say("train: saving a checkpoint before it ends; Ctrl-C again ends it at once, without")
    run.write_text("", *STOP)
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(run, ended, over), daemon=True).start()
    follow(over)
    now = checkpoint.complete_steps(run)
    if now[-1:] != saved[-1:]:
        say(f"train: the checkpoint of step {now[-1]} is saved")
    else:
        say(f"train: no checkpoint could be saved ({_why(run)})")


def _wait_for_the_end(run: RunDir, ended: threading.Event, over: threading.Event) -> None:
    """Sets `over` when the workers have ended, or when they neither answer nor make steps any more."""
    look_every = _LOOK_EVERY_SECONDS if run.is_local else _ASK_STORE_EVERY_SECONDS
    patience = _PATIENCE_SECONDS if run.is_local else _PATIENCE_WITH_STORE_SECONDS
    last_step, since = None, time.monotonic()
    while not ended.wait(timeout=look_every):
        try:
            lines, is_answered = read_log(run), run.read_text(*STOP) == _ANSWER
        except OSError:  # a store that is away for a moment says nothing of the workers
            since = time.monotonic()
            continue
        # Workers that start again take back the lines beyond their checkpoint, maybe all.
        step = lines[-1]["step"] if lines else 0
        ten_steps = 10 * max((line.get("seconds", 0.0) for line in lines[-20:]), default=0.0)
        if is_answered or step != last_step:
            last_step, since = step, time.monotonic()
        elif time.monotonic() - since > max(patience, ten_steps):
            break
    over.set()


def _why(run: RunDir) -> str:
    if not run.exists(*OUTCOME):
        return "the workers are gone"
    return str(json.loads(run.read_text(*OUTCOME)).get("message", "all steps were done"))
