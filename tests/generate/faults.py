"""Runs of the generate stage as processes that can be killed, and the count of their rows afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from music_ray.config.load import resolve_config
from music_ray.jobs.shards import read_index
from music_ray.rundir import RunDir

SHARDS = ("rollouts", "shards")
ACTOR = "ray::MapWorker"
RAY_AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")


@dataclass(frozen=True)
class Outcome:
    """What a fault did to the rows, for the table at the end of the tests."""

    fault: str
    seeds: int
    flushed_before: int
    lost: int
    duplicated: int
    regenerated: int


OUTCOMES: list[Outcome] = []


@dataclass
class FaultyRun:
    """One run folder and the processes that work on it."""

    folder: Path
    values: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run(self) -> RunDir:
        """The run folder."""
        return RunDir(resolve_config(self.values))

    def command(self, stage: str) -> list[str]:
        """A command on this run."""
        config = self.folder / "config.yaml"
        config.write_text(json.dumps(self.values))
        return [sys.executable, "-m", "music_ray", stage, str(config)]

    def start(self, stage: str = "generate") -> subprocess.Popen[str]:
        """A driver in the background; what it says goes to a file."""
        with (self.folder / f"driver-{len(self.drivers)}.log").open("w") as log:
            driver = subprocess.Popen(
                self.command(stage),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                # A shell that runs the tests in the background has them, and so the driver, ignore Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                env={**os.environ, **self.environment},
            )
        self.drivers.append(driver)
        return driver

    def said(self) -> str:
        """What the last driver said."""
        return (self.folder / f"driver-{len(self.drivers) - 1}.log").read_text()

    def finish(self, stage: str = "generate") -> None:
        """Brings the stage to its end by the same command, and waits for it."""
        driver = self.start(stage)
        assert driver.wait(timeout=500) == 0, self.said()

    def flushed(self) -> set[int]:
        """Ids that lie in shards now."""
        return set(read_index(self.run, SHARDS).ids.tolist())

    def wait_for(self, number: int, seconds: float = 400) -> set[int]:
        """Waits until so many rows lie in shards while the driver lives."""
        deadline = time.monotonic() + seconds
        while len(flushed := self.flushed()) < number:
            assert self.drivers[-1].poll() is None, f"the driver ended too soon:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {number} rows in {seconds} s:\n{self.said()}"
            time.sleep(0.05)
        return flushed

    def processes(self, what: Callable[[str], bool] = lambda name: True) -> list[psutil.Process]:
        """The driver's descendants whose command line is like that."""
        found = []
        for process in psutil.Process(self.drivers[-1].pid).children(recursive=True):
            try:
                if what(" ".join(process.cmdline())):
                    found.append(process)
            except psutil.Error:  # gone meanwhile
                continue
        return found

    def actors(self) -> list[psutil.Process]:
        """The engine actors."""
        return self.processes(lambda name: name.startswith(ACTOR))

    def kill_driver(self) -> list[psutil.Process]:
        """kill -9; returns what the driver had started."""
        left = self.processes()
        os.kill(self.drivers[-1].pid, signal.SIGKILL)
        self.drivers[-1].wait()
        return left

    def stop(self) -> None:
        """Leaves nothing behind."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.send_signal(signal.SIGTERM)
                try:
                    driver.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    driver.kill()

    def count(self, fault: str, flushed_before: set[int]) -> Outcome:
        """Counts the rows at the end and keeps the count for the table."""
        seeds = set(self.run.read_ids("seeds", "contexts").tolist())
        rows = [row["id"] for row in self.run.read_rows(*SHARDS, columns=["id"])]
        times = dict.fromkeys(seeds, 0)
        for one in rows:
            times[one] += 1
        outcome = Outcome(
            fault,
            seeds=len(seeds),
            flushed_before=len(flushed_before),
            lost=sum(number == 0 for number in times.values()),
            duplicated=sum(max(0, number - 1) for number in times.values()),
            regenerated=sum(times[one] > 1 for one in flushed_before),
        )
        OUTCOMES.append(outcome)
        return outcome


def none_left(processes: list[psutil.Process], seconds: float = 40, *, agents_too: bool = False) -> list[str]:
    """Command lines of those that still run after some seconds.

    Args:
        agents_too: Ray's own agents as well; they hold no model and end by themselves, but ask a dead GCS
            for a minute first.
    """
    agents = [one for one in processes if _is_agent(one)]
    others = [one for one in processes if one not in agents]
    alive = _still_alive(others, seconds)
    if agents_too:
        alive += _still_alive(agents, 180)
    return [" ".join(one.cmdline())[:100] for one in alive]


def _still_alive(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that run after so many seconds; a dead process that nobody has waited for is dead."""
    deadline = time.monotonic() + seconds
    while processes and time.monotonic() < deadline:
        processes = [one for one in processes if _runs(one)]
        time.sleep(0.2)
    return processes


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_agent(process: psutil.Process) -> bool:
    try:
        return any(agent in process.name() for agent in RAY_AGENTS)
    except psutil.Error:
        return False


def table() -> list[str]:
    """The outcomes as lines."""
    head = f"{'fault':58} {'seeds':>6} {'flushed':>8} {'lost':>5} {'duplicated':>11} {'regenerated':>12}"
    return [
        head,
        *(
            f"{one.fault:58} {one.seeds:6} {one.flushed_before:8} {one.lost:5} {one.duplicated:11} "
            f"{one.regenerated:12}"
            for one in OUTCOMES
        ),
    ]
