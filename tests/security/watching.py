"""What a command and all that it starts do: where they listen, what their command lines tell."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

_LOOK_SECONDS = 0.3


@dataclass
class Seen:
    """What was seen of a tree of processes."""

    code: int = 0
    out: str = ""
    err: str = ""
    listening: set[tuple[str, str]] = field(default_factory=set)
    """(address, name of the process), without ports."""
    command_lines: set[str] = field(default_factory=set)

    @property
    def listening_elsewhere(self) -> set[tuple[str, str]]:
        """Those that another machine may reach."""
        return {(address, name) for address, name in self.listening if address != "127.0.0.1"}


def run_watched(command: list[str], *, timeout: float, **options: Any) -> Seen:
    """Runs a command to its end, and looks at it and its children every now and then."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        with watching(process.pid) as seen:
            seen.out, seen.err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    seen.code = process.returncode
    return seen


@contextlib.contextmanager
def watching(pid: int) -> Iterator[Seen]:
    """Looks at a process and its children while the block runs."""
    seen, over = Seen(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            _look_at(pid, seen)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _look_at(pid: int, seen: Seen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has just ended
                look_at_one(process, seen)


def look_at_one(process: psutil.Process, seen: Seen) -> None:
    """Adds what one process does now."""
    line = " ".join(process.cmdline())
    seen.command_lines.add(line)
    for one in process.net_connections(kind="inet"):
        if one.status == psutil.CONN_LISTEN:
            seen.listening.add((one.laddr.ip.removeprefix("::ffff:"), f"{process.name()} {line[:80]}"))
