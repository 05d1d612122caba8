"""What the driver says while the workers train: it reads the logs that rank 0 writes."""

from __future__ import annotations

import threading
from typing import Any

from music_ray.progress import duration, say
from music_ray.reward.logbook import EVALUATIONS, read_log
from music_ray.reward.tracker import Tracker
from music_ray.reward.validate import evaluation_line
from music_ray.rundir import RunDir

_READ_EVERY_SECONDS = 5.0
"""The logs are read whole, and they grow with the training."""
_FETCH_EVERY_SECONDS = 15.0
"""The same where the run folder is behind a URI: rank 0 sends the log no more often."""


def tell_steps(run: RunDir, ended: threading.Event, tracker: Tracker | None) -> None:
    """Follows the training's logs until it has ended: a line every few seconds, and each evaluation."""
    train = run.config.train
    told, waited = 0, _READ_EVERY_SECONDS if run.is_local else _FETCH_EVERY_SECONDS
    evaluated = max((line["step"] for line in read_log(run, EVALUATIONS)), default=0)
    while True:
        is_last = ended.is_set()
        try:
            lines, evaluations = read_log(run), read_log(run, EVALUATIONS)
            if tracker is not None:
                tracker.follow()
        except OSError as error:  # the workers may still get their files there, and they train meanwhile
            say(f"train: the log could not be read ({error})")
            lines, evaluations = [], []
        if lines and lines[-1]["step"] != told:
            told = lines[-1]["step"]
            say(step_line(lines, train.steps))
        for line in evaluations:
            if line["step"] > evaluated:
                evaluated = line["step"]
                say(evaluation_line(line, train))
        if is_last:
            break
        ended.wait(timeout=waited)
    if tracker is not None:
        tracker.close()


def step_line(lines: list[dict[str, Any]], steps: int) -> str:
    """One line on the last step: loss, accuracy, margin, speed, time left."""
    last, recent = lines[-1], lines[-20:]
    seconds = sum(line["seconds"] for line in recent)
    parts = [
        f"train: step {last['step']}/{steps}",
        f"loss {last['loss']:.4f}",
        f"accuracy {last['accuracy']:.2f}",
        f"margin {last['margin']:+.3f}",
        f"{sum(line['tokens'] for line in recent) / max(seconds, 1e-9):.0f} tokens/s",
    ]
    if last.get("mfu") is not None:
        parts.append(f"MFU {last['mfu']:.0%}")
    if last["step"] < steps:
        parts.append(f"{duration((steps - last['step']) * seconds / len(recent))} left")
    return " · ".join(parts)
