"""What a stage says while it works: plain lines that read well in a terminal and in a job log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from music_ray.visible import visible

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "DS_LOG_LEVEL": "error",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}


def say(text: str) -> None:
    """Prints one line (rich would turn `:key:` into a picture) and flushes it.

    A text of others may be part of it, so nothing of it acts on a terminal; where such a text could hold
    newlines, the caller puts it on one line.
    """
    sys.stdout.write(f"{visible(text)}\n")
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def quieten_libraries() -> None:
    """Asks libraries that are not imported yet to say only what goes wrong; the environment wins."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


class Progress:
    """Counts work that is done and says it every few seconds: how much, how fast, how long still.

    Rate and time left go by this start of the stage alone; work that was there before counts as done.
    """

    def __init__(self, label: str, total: int, *, done: int = 0, every_seconds: float = 5.0) -> None:
        self.label, self.total, self.done, self.before = label, total, done, done
        self.every_seconds = every_seconds
        self.started = self.said = time.monotonic()
        self.counters: dict[str, int] = {}

    def add(self, done: int, counters: Mapping[str, int] | None = None) -> None:
        """Adds finished units, and named counters such as tokens or errors."""
        self.done += done
        for name, number in (counters or {}).items():
            self.counters[name] = self.counters.get(name, 0) + number
        if time.monotonic() - self.said >= self.every_seconds:
            self.tell()

    def tell(self) -> None:
        """Says one line now."""
        self.said = time.monotonic()
        elapsed = max(self.said - self.started, 1e-9)
        rate = (self.done - self.before) / elapsed
        parts = [f"{self.label}: {self.done}/{self.total}", f"{rate:.2f}/s"]
        if tokens := self.counters.get("tokens"):
            parts.append(f"{tokens / elapsed:.0f} tokens/s")
        parts += [f"{name} {number}" for name, number in self.counters.items() if name != "tokens"]
        if rate > 0 and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        parts.append(f"{duration(elapsed)} so far")
        say(" · ".join(parts))
