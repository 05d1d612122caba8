"""The log of a job as it grows, read in a thread: neither Ctrl-C nor a look at the job waits for it.

The server sends a log from its beginning whenever it is asked; what was taken already is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable


class LogReader:
    """Reads one connection's worth of a log. After a break the next reader begins where this one was left."""

    def __init__(self, tail: Callable[[], AsyncIterator[str]], taken: int = 0) -> None:
        self._tail = tail
        self._skip = taken
        self.taken = taken
        """Characters of the log that were taken from here or before."""
        self._last = time.monotonic()
        self._failed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._texts: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A daemon: a connection to a machine that was switched off may never end.
        self._thread = threading.Thread(target=self._read, name="job-log", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended and all of it was taken."""
        return not self._thread.is_alive() and self._texts.empty()

    @property
    def is_broken(self) -> bool:
        """Whether the connection has ended before the log did, and all that came was taken."""
        return self.is_over and self._failed

    @property
    def seconds_silent(self) -> float:
        """How long nothing has come."""
        return time.monotonic() - self._last

    def take(self, seconds: float) -> str:
        """What has come, waiting so long for the first of it; empty when nothing has."""
        parts = []
        try:
            parts.append(self._texts.get(timeout=seconds) if seconds > 0 else self._texts.get_nowait())
            while True:
                parts.append(self._texts.get_nowait())
        except queue.Empty:
            text = "".join(parts)
        if text:
            self.taken += len(text)
            self._last = time.monotonic()
        return text

    def again(self) -> LogReader:
        """A reader on a new connection; this one is given up."""
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it has ended this very moment
                self._loop.call_soon_threadsafe(self._task.cancel)
        return LogReader(self._tail, self.taken)

    def _read(self) -> None:
        import aiohttp

        try:
            asyncio.run(self._receive())
        except (asyncio.CancelledError, RuntimeError, OSError, aiohttp.ClientError):
            self._failed = True  # whoever looks after the job asks the cluster why

    async def _receive(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async for text in self._tail():
            new = text[self._skip :]
            self._skip = max(0, self._skip - len(text))
            if new:
                self._texts.put(new)
