"""Ends the processes that an engine started, however this process ends.

vLLM's core does not notice that the process which started it was killed: it and its workers stay, and
keep their memory. So a small watcher holds the reading end of a pipe whose writing end only this process
has. When the pipe closes, whatever carries the lifeline's mark in its environment is killed.

The watcher is this file, run as a program by a bare interpreter: nothing but the standard library may be
imported here. It reads Linux's /proc, and knows nothing of vLLM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "MUSIC_RAY_LIFELINE"
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0


class Lifeline:
    """A watcher for the processes that are started inside `marking()`."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._mark],
            stdin=subprocess.PIPE,
            start_new_session=True,  # neither Ctrl-C nor the end of a process group takes it along
        )

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """Processes started in here, and those that they start, carry the mark."""
        # setproctitle writes a long title over the memory that /proc shows as the environment, unless:
        with environment({VARIABLE: self._mark, "SPT_NOENV": "1"}):
            yield

    def close(self) -> None:
        """Kills what is left of the marked processes, now."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def marked(mark: str) -> list[int]:
    """Processes that carry a mark."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        # Gone in the meantime, or another user's: neither is ours.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _end(mark: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    # Trackers of shared memory free what the others leave behind, and then end by themselves.
    while (left := [pid for pid in marked(mark) if not _is_tracker(pid)]) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _is_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


if __name__ == "__main__":
    sys.stdin.buffer.read()  # returns when the pipe closes
    _end(sys.argv[1])
