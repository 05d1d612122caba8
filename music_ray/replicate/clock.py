"""Seconds by part of a replication, over all of its starts."""

from __future__ import annotations

import json
import time
from pathlib import Path

from music_ray.progress import duration, say
from music_ray.replicate.record import read_json, write_text


class Clock:
    """Counts seconds by part; what earlier starts counted stands in the file and is added to.

    The seconds of a part that was interrupted before its lap are lost.

    Args:
        file: seconds.json, made with the first lap.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds: dict[str, float] = {}
        if file.exists():
            self.seconds = read_json(file, "remove it: it says only how long the parts took")
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Counts what went by since the last lap as `name`."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 1)
        self._last = now
        write_text(self._file, json.dumps(self.seconds, indent=2) + "\n")
        say(f"replicate: {name}, {duration(self.seconds[name])} so far")
