"""A contrast that takes its time and keeps a record, so that a run lasts and its work can be counted.

Every call appends a line to a file before it begins: when, which process, which seed. What was begun and
lost with a process stands there as well, which is how wasted work is known.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from music_ray.generate.contrasts import ContrastReply, ContrastRequest

FOLDER = "MUSIC_RAY_CHAOS_FOLDER"
"""Environment variable of Ray's nodes: where the record and the pace lie."""
_CALLS, _PACE = "calls.txt", "pace.json"


@dataclass(frozen=True)
class Call:
    """One line of the record."""

    at: float
    """Seconds since 1970."""
    pid: int
    opening: str
    """The seed's first message, which tells which seed it is."""


def set_pace(folder: Path, *, seconds: float, until: float, ask: bool) -> None:
    """Says how long a contrast takes.

    Args:
        seconds: of sleep in each contrast.
        until: from this time on nobody sleeps; seconds since 1970.
        ask: whether the engine writes the contrast's text.
    """
    (folder / _PACE).write_text(json.dumps({"seconds": seconds, "until": until, "ask": ask}))


def read_calls(folder: Path, start: int = 0) -> Iterator[tuple[int, Call]]:
    """The complete lines of the record from an offset on, each with the offset after it."""
    file = folder / _CALLS
    if not file.exists():
        return
    with file.open("rb") as handle:
        handle.seek(start)
        for line in handle:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            at, pid, opening = line.decode().rstrip("\n").split(" ", 2)
            yield start, Call(float(at), int(pid), opening)


async def contrast(request: ContrastRequest) -> ContrastReply:
    """The plugin (contrast.plugin)."""
    folder = Path(os.environ[FOLDER])
    _record(folder, request.history[0]["content"])
    pace = json.loads((folder / _PACE).read_text())
    await asyncio.sleep(max(0.0, min(pace["seconds"], pace["until"] - time.time())))
    if not pace["ask"]:
        return ContrastReply(f"Something else, in turn {request.turn}.")
    completion = await request.ask([{"role": "user", "content": "Please tell me about something else."}])
    return ContrastReply(completion.text or "Nothing.")


def _record(folder: Path, opening: str) -> None:
    line = f"{time.time():.3f} {os.getpid()} {' '.join(opening.split())}\n"
    file = os.open(folder / _CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())  # one write: lines of several processes do not mix
    finally:
        os.close(file)
