"""Where actors say how far they are, and where they hear whether to go on.

The board is a small Ray actor. Counters travel here every few seconds and rows never do. It also
remembers which rows are being worked on, so that a row that was in an engine each time an engine died
is recognised although its actors are gone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

GO_ON, DRAIN, FLUSH = "go on", "drain", "flush"
"""drain: finish what is in flight and begin nothing. flush: write what is finished; the rest is given up."""


@dataclass
class _InFlight:
    """A row that is being worked on, or was when its actor died."""

    starts: int = 0
    """How often it went into an engine without coming out."""
    declared: int = 0
    """How often its actor said that the engine died under it."""


@dataclass
class _Actor:
    """One actor's life."""

    counts: dict[str, int] = field(default_factory=dict)
    born: float = 0.0
    seen: float = 0.0
    heard: str = GO_ON


class Board:
    """Keeps the counters of all actors, the rows in flight, and the word to all of them."""

    def __init__(self) -> None:
        self._actors: dict[str, _Actor] = {}
        self._rows: dict[int, _InFlight] = {}
        self._tasks: set[int] = set()
        """The first id of each task that was begun: 60 bytes for a task of 16 rows."""
        self._directive = GO_ON
        self._deaths: list[str] = []
        self._failed_starts: dict[str, str] = {}
        """Where an engine could not be started, first, by why."""
        self._failed_in_a_row = 0

    # -- said by actors ----------------------------------------------------------------------------

    def report(self, who: str, counts: dict[str, int], heard: str = GO_ON) -> str:
        """Replaces what `who` said before (its counters only grow); returns the word to all.

        Args:
            heard: the word that `who` has carried out; FLUSH or DRAIN once nothing is left with it.
        """
        now = time.monotonic()
        actor = self._actors.setdefault(who, _Actor(born=now))
        actor.counts, actor.seen, actor.heard = counts, now, heard
        return self._directive

    def begin(self, ids: list[int]) -> tuple[str, bool, dict[int, tuple[int, int]]]:
        """Rows of a task: those that are not in flight are so from now.

        Returns:
            the word to all, whether Ray tries this task again (it does so even with a task whose result has
            arrived, when the actor dies right after it), and of the rows that were in an engine before and
            did not come out: (starts, declared).
        """
        if self._directive != GO_ON:
            return self._directive, False, {}
        self._failed_in_a_row = 0
        again = ids[0] in self._tasks
        self._tasks.add(ids[0])
        suspects = {one: self._rows[one] for one in ids if one in self._rows}
        for one in ids:
            if one not in suspects:
                self._rows[one] = _InFlight(starts=1)
        return GO_ON, again, {one: (row.starts, row.declared) for one, row in suspects.items()}

    def enter(self, one: int) -> None:
        """A row that was in flight when an actor died goes into an engine again."""
        self._rows.setdefault(one, _InFlight()).starts += 1

    def engine_died(self, ids: list[int], reason: str) -> None:
        """An actor's last word: its engine died while these rows were in it."""
        self._deaths.append(reason)
        for one in ids:
            self._rows.setdefault(one, _InFlight(starts=1)).declared += 1

    def start_failed(self, reason: str, where: str) -> int:
        """An engine that did not come up.

        Returns:
            how many starts have failed since a task was last begun; 0 where none ever was, so that nothing
            has shown yet that the job can be done at all.
        """
        if not self._tasks:
            return 0
        self._failed_starts.setdefault(reason, where)
        self._failed_in_a_row += 1
        return self._failed_in_a_row

    # -- said and asked by the driver --------------------------------------------------------------

    def end(self, ids: list[int]) -> None:
        """Rows whose result has reached the driver."""
        for one in ids:
            self._rows.pop(one, None)

    def direct(self, directive: str) -> None:
        """Gives the word to all; they hear it with their next report."""
        self._directive = directive

    def totals(self) -> dict[str, Any]:
        """Sums over all actors there ever were, and how the living ones are.

        Returns:
            the counters' sums, and: tasks (that were begun), actors (that ever reported), alive (heard of
            lately), engine_seconds (their lifetimes, the start of the engine included), deaths, obeyed (of
            the living, how many have carried out the word), failed_starts (where, by why).
        """
        now = time.monotonic()
        alive = [actor for actor in self._actors.values() if now - actor.seen < ALIVE_SECONDS]
        sums: dict[str, Any] = {
            "actors": len(self._actors),
            "tasks": len(self._tasks),
            "alive": len(alive),
            "obeyed": sum(actor.heard == self._directive for actor in alive),
            "engine_seconds": sum(actor.seen - actor.born for actor in self._actors.values()),
            "deaths": list(self._deaths),
            "failed_starts": dict(self._failed_starts),
        }
        for actor in self._actors.values():
            for name, number in actor.counts.items():
                if name != "in_flight" or actor in alive:  # a dead actor has nothing in flight
                    sums[name] = sums.get(name, 0) + number
        return sums


REPORT_SECONDS = 3.0
"""How often an actor says where it stands."""
MOST_FAILED_STARTS = 2
"""So many engines in a row may fail to start, on one bad node or in one bad moment; one more ends the job."""
ALIVE_SECONDS = 5 * REPORT_SECONDS
"""An actor that has said nothing for so long is taken for dead or still loading its model."""


def start_board() -> Any:
    """The board of one job, as a Ray actor that takes no CPU from engines."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's own node: when that goes, the job goes anyway.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Board)
    # A call that a network blip cut off is made again: it says what is, not what came on top.
    return actor.options(num_cpus=0, max_task_retries=3, scheduling_strategy=here).remote()
