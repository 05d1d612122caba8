"""How many requests run at once at an endpoint whose capacity nobody tells us.

The limit grows while requests are answered and is halved when the endpoint says that it is too much
(additive increase, multiplicative decrease), as TCP finds the width of a path. Nothing here knows
HTTP: what counts as too much is the caller's business.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

START = 8
"""Requests at once until the endpoint has shown what it takes."""
COOLDOWN_SECONDS = 1.0
"""After the limit was halved, requests begun within this time say nothing about the new limit."""


class AdaptiveLimit:
    """The limit as a function of what was answered, refused, and when.

    Until the first refusal it grows by one an answer (it doubles every round trip), afterwards by one
    every round trip.

    Args:
        maximum: never more than this.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        maximum: int,
        *,
        cooldown_seconds: float = COOLDOWN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.maximum, self.cooldown_seconds, self.clock = maximum, cooldown_seconds, clock
        self._limit = float(min(START, maximum))
        self._refused_before = False
        self._settled_at = float("-inf")
        self._paused_until = float("-inf")

    @property
    def limit(self) -> int:
        """Requests that may run at once now, at least 1."""
        return int(self._limit)

    @property
    def pause_seconds(self) -> float:
        """For how long no request may begin, because the endpoint asked for that."""
        return max(0.0, self._paused_until - self.clock())

    def answered(self, begun_at: float, running: int) -> None:
        """A request that began at `begun_at` was answered while `running` ran, itself included."""
        is_in_use = 2 * running > self.limit  # else the answer says nothing about a higher limit
        if is_in_use and begun_at >= self._settled_at:
            step = 1.0 / self._limit if self._refused_before else 1.0
            self._limit = min(float(self.maximum), self._limit + step)

    def refused(self, begun_at: float, pause_seconds: float = 0.0) -> None:
        """A request that began at `begun_at` was too much; the endpoint may ask for a pause of all."""
        now = self.clock()
        self._paused_until = max(self._paused_until, now + pause_seconds)
        self._refused_before = True
        if begun_at >= self._settled_at:
            self._limit = max(1.0, self._limit / 2)
            self._settled_at = now + self.cooldown_seconds


class Gate:
    """Lets as many requests in as the limit allows, in the order of their arrival."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waking_loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """A place for one request; gives the time at which it was got."""
        await self._enter()
        try:
            yield self.limit.clock()
        finally:
            self.running -= 1
            self._admit()

    async def _enter(self) -> None:
        if not self._waiting and self._has_room():
            self.running += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was let in just before
                self.running -= 1
                self._admit()
            raise

    def _has_room(self) -> bool:
        return self.running < self.limit.limit and not self.limit.pause_seconds

    def _admit(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.done():  # its waiter was not cancelled
                self.running += 1
                place.set_result(None)
        if self._waiting and (pause := self.limit.pause_seconds):
            self._wake_after(pause)

    def _wake_after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._waking_loop is not loop:  # one timer is enough
            self._waking_loop = loop
            # A little longer: the event loop's clock may be a tick behind.
            loop.call_later(seconds + 0.01, self._wake)

    def _wake(self) -> None:
        self._waking_loop = None
        self._admit()
