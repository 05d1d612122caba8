"""Which rows of an actor may enter its engine, and what an engine's death says about those that were in it.

When an engine dies, any of the rows in it may have killed it. They are tried again in smaller company,
and at last alone; a row that engines die with time and again, the last time alone, is given up.
"""

from __future__ import annotations

import asyncio
from typing import Any

from music_ray.jobs.board import GO_ON

Suspect = tuple[int, int]
"""(how often it went into an engine without coming out, how often its engine was declared dead)."""

UNDECLARED_PER_DEATH = 3
"""An actor that vanishes (a spot node taken away, kill -9) says nothing, and counts a third of a death."""
SMALLER = 8
"""After the first death so many times fewer rows are tried at once."""


class Admission:
    """One actor's places. All methods run on one event loop.

    Args:
        room: rows that may be in the engine at once.
        max_deaths: generate.max_engine_deaths.
    """

    def __init__(self, board: Any, room: int, max_deaths: int) -> None:
        self._board = board
        self._max_deaths = max_deaths
        self._room = asyncio.Semaphore(room)
        self._next = asyncio.Lock()
        group = asyncio.Semaphore(max(SMALLER, room // SMALLER))
        self._groups = [*([group] * (max_deaths - 2)), asyncio.Semaphore(1)]
        """By starts - 1: in a smaller group until the last try, which is alone."""

    async def begin(self, ids: list[int]) -> tuple[str, bool, dict[int, Suspect]]:
        """Waits for places for a task's rows and begins it on the board (see Board.begin).

        Rows count as begun only when they have a place: what only waits when an engine dies is not
        suspected. Suspects give their place back: they go by place_of.
        """
        async with self._next:  # one task after the other, or two would wait for each other's places
            for _ in ids:
                await self._room.acquire()
        directive, again, suspects = await self._board.begin.remote(ids)
        self.leave(len(suspects) if directive == GO_ON else len(ids))
        return directive, again, suspects

    def leave(self, number: int) -> None:
        """Gives places back."""
        for _ in range(number):
            self._room.release()

    def place_of(self, suspect: Suspect) -> asyncio.Semaphore:
        """Where a suspect waits for its turn."""
        return self._groups[min(suspect[0], len(self._groups)) - 1]

    def is_alone(self, suspect: Suspect) -> bool:
        """Whether it is tried alone."""
        return suspect[0] >= len(self._groups)

    def is_deadly(self, suspect: Suspect) -> bool:
        """Whether it is not tried any more."""
        starts, declared = suspect
        return declared >= self._max_deaths or starts >= UNDECLARED_PER_DEATH * self._max_deaths
