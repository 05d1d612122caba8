"""One scene: a driver at work on a cluster, and the faults that happen to it until it has finished.

A killed driver is started again after the pause that `music-ray submit --resubmit` makes, a lost node is
replaced after a while as an autoscaler would. What the work is, and how its end is counted, the kinds of
scene know (generation, training).
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from music_ray.progress import say
from tests.chaos.nodes import Nodes
from tests.chaos.schedule import Fault

ROOT = Path(__file__).resolve().parents[2]
RESUBMIT_SECONDS = 5.0
"""Between a driver's end and the next start, as `submit` waits."""
NODE_SECONDS = 10.0
"""Until another node stands in for a lost one."""
LONG_NODE_SECONDS = 60.0
"""The same where the work is to go on without it meanwhile."""
WORKER, NODE, NODE_FOR_LONG, DRIVER = "worker", "node", "node, for long", "driver"
"""What is lost: one worker process, or all that runs on a node, or the driver."""
LOOK_SECONDS = 0.1
MOST_UNASKED_ENDS = 5
TOO_FEW_NODES = "exceeds the cluster's"
"""In what training says when it is started on fewer nodes than it asks for."""


@dataclass
class Incident:
    """A fault that has happened."""

    kind: str
    at: float
    """Seconds since 1970."""
    before: Any
    """What the scene needs to know whether what was lost is worked on again."""
    back: float | None = None
    """When it was, first."""
    is_back_at_end: bool = False
    """Whether nothing lost had to be worked on again, so that the end of the scene stands for it."""


@dataclass
class Played:
    """What a scene has come to; the counts are for its own kind to add."""

    name: str
    seconds: float = 0.0
    starts: int = 0
    """Of drivers."""
    refused: int = 0
    """Starts that were told at once that there are too few nodes."""
    unasked_ends: list[str] = field(default_factory=list)
    """Last lines of drivers that ended without being killed."""
    planned: int = 0
    """Faults of the schedule; one that finds nothing to hit before the end does not strike."""
    incidents: list[Incident] = field(default_factory=list)
    """Those that struck."""
    zeros: dict[str, int] = field(default_factory=dict)
    """What must be 0, by name."""
    facts: dict[str, Any] = field(default_factory=dict)
    wasted_share: float = 0.0
    """Of the work that was begun."""

    def end_well(self, at: float) -> None:
        """The driver has reached its end: what was lost and left no new work to see is recovered by that."""
        for incident in self.incidents:
            if incident.back is None:
                incident.back, incident.is_back_at_end = at, True


class Scene(abc.ABC):
    """Work that is done by a driver and Ray's worker processes."""

    name: ClassVar[str]
    worker: ClassVar[str]
    """What the names of its worker processes hold."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.played = Played(self.name)
        self._driver: subprocess.Popen[str] | None = None
        self._start_at: float | None = None
        self._was_killed = False
        self._joins: list[float] = []

    @abc.abstractmethod
    def command(self) -> list[str]:
        """The driver, on the nodes that there are now."""

    @abc.abstractmethod
    def look(self) -> None:
        """Notes what the work has come to."""

    @abc.abstractmethod
    def remember(self, lost: set[int]) -> Any:
        """What tells later whether work goes on.

        Args:
            lost: ids of the processes that are about to be lost.
        """

    @abc.abstractmethod
    def back_since(self, incident: Incident) -> float | None:
        """When what was lost was first worked on again, if it was."""

    @abc.abstractmethod
    def count(self) -> None:
        """Fills `played` at the end."""

    # -- from its start to its end -----------------------------------------------------------------

    def play(self, faults: Sequence[Fault], most_seconds: float) -> Played:
        """Runs the driver to its end, with these faults, and counts.

        Raises:
            AssertionError: it takes longer than that, or ends by itself time and again.
        """
        waiting = list(faults)
        self.played.planned = len(waiting)
        began = time.time()
        self._start_driver()
        try:
            while not self._is_done():
                self._observe()
                seconds = time.time() - began
                assert seconds < most_seconds, f"{self.name}: not done in {seconds:.0f} s:\n{self.said()}"
                if waiting and seconds >= waiting[0].at and self._strike(waiting[0]):
                    waiting.pop(0)
                if self._joins and time.time() >= self._joins[0]:
                    self._joins.pop(0)
                    self.nodes.join()
                    say(f"{self.name}: a node has joined, {len(self.nodes.alive)} are there")
                time.sleep(LOOK_SECONDS)
        finally:
            self._stop()
        self._observe()
        self.played.end_well(time.time())
        self.played.seconds = time.time() - began
        self.count()
        return self.played

    def said(self) -> str:
        """The end of what the last driver said."""
        return self._log(self.played.starts).read_text()[-3000:]

    def _observe(self) -> None:
        self.look()
        for incident in self.played.incidents:
            if incident.back is None and (back := self.back_since(incident)) is not None:
                incident.back = back
                say(f"{self.name}: at work again {back - incident.at:.1f} s after the loss ({incident.kind})")

    # -- the driver --------------------------------------------------------------------------------

    def _start_driver(self) -> None:
        self.played.starts += 1
        self._start_at, self._was_killed = None, False
        with self._log(self.played.starts).open("w") as log:
            self._driver = subprocess.Popen(
                self.command(), stdout=log, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
                start_new_session=True, env={**os.environ, "RAY_ADDRESS": self.nodes.address},
                # A shell that runs this in the background has it, and so the driver, ignore Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    def _is_done(self) -> bool:
        """Whether the driver has reached its end; one that was killed or gave up is started again."""
        if self._start_at is not None:
            if time.time() >= self._start_at:
                self._start_driver()
            return False
        assert self._driver is not None
        code = self._driver.poll()
        if code is None:
            return False
        if code == 0:
            return True
        if not self._was_killed:
            self._note_unasked_end(code)
        self._start_at = time.time() + RESUBMIT_SECONDS
        return False

    def _note_unasked_end(self, code: int) -> None:
        last = (self.said().strip().splitlines() or ["nothing"])[-1]
        say(f"{self.name}: the driver ended with {code}: {last}")
        if TOO_FEW_NODES in last:
            self.played.refused += 1
            return
        self.played.unasked_ends.append(f"{code}: {last}")
        assert len(self.played.unasked_ends) <= MOST_UNASKED_ENDS, self.said()

    def _stop(self) -> None:
        if self._driver is not None and self._driver.poll() is None:
            self._driver.kill()
            self._driver.wait()

    def _log(self, start: int) -> Path:
        return self.folder / f"driver-{start}.log"

    # -- faults ------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> bool:
        """Makes it happen; False where there is nothing to hit yet."""
        aimed = self._aim(fault)
        if aimed is None:
            return False
        lost, blow = aimed
        before = self.remember({process.pid for process in lost})
        incident = Incident(fault.kind, time.time(), before)
        with contextlib.suppress(psutil.NoSuchProcess):  # it was faster
            blow()
        self.played.incidents.append(incident)
        say(f"{self.name}: {fault.kind} lost, {fault.at:.0f} s into the schedule")
        return True

    def _aim(self, fault: Fault) -> tuple[list[psutil.Process], Callable[[], None]] | None:
        """The workers that will be lost, and what does it."""
        workers = self.nodes.workers(self.worker)
        if fault.kind == DRIVER:
            return (workers, self._end_driver) if self._drives() else None
        if fault.kind == WORKER:
            if not workers:
                return None
            victim = workers[int(fault.draw * len(workers))]
            return [victim], victim.kill
        for_long = fault.kind == NODE_FOR_LONG
        if len(self.nodes.alive) < 2 or (for_long and not self._drives()):
            return None
        at_work = [node for node in self.nodes.alive if self.nodes.workers(self.worker, node)]
        victims = at_work or self.nodes.alive
        node = victims[int(fault.draw * len(victims))]
        lost = workers if for_long else self.nodes.workers(self.worker, node)
        return lost, functools.partial(self._lose_node, node, for_long=for_long)

    def _drives(self) -> bool:
        return self._start_at is None and self._driver is not None and self._driver.poll() is None

    def _end_driver(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self._driver is not None
        self._was_killed = True
        os.kill(self._driver.pid, how)

    def _lose_node(self, node: Any, *, for_long: bool) -> None:
        """Loses it; the driver is stopped, to start again without it, where it stays away for long."""
        self.nodes.lose(node)
        self._joins.append(time.time() + (LONG_NODE_SECONDS if for_long else NODE_SECONDS))
        self._joins.sort()
        if for_long:
            self._end_driver(signal.SIGINT)
