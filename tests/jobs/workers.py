"""Workers for jobs on a real Ray: they answer at once, fail, or kill their process on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from music_ray.engines.base import EngineDeadError
from music_ray.errors import InputError
from tests.jobs.test_ledger import ROW


class TestWorker:
    """payload: deadly (ids that kill), how ('declared' or 'killed'), failing (ids), seconds a row; starts (a
    folder), and how: which starts fail, 'all', 'the second' once the first has worked, or 'after death' (the
    first works and is killed) so many times as `times` says."""

    __test__ = False

    def __init__(self, config, run_epoch, payload, metrics):
        self.payload, self.calls, self.dead = payload, 0, False
        if "starts" in payload:
            self.start(Path(payload["starts"]))

    def start(self, folder):
        number = 0
        while True:  # the first of its number, whichever processes start at the same time
            try:
                (folder / f"start-{number}").touch(exist_ok=False)
                break
            except FileExistsError:
                number += 1
        while self.payload["how"] == "the second" and number and not (folder / "worked").exists():
            time.sleep(0.05)
        failing = {"all": range(99), "the second": range(1, 2)}.get(
            self.payload["how"], range(1, 1 + self.payload.get("times", 0))
        )
        if number in failing:
            raise InputError(f"the hub is away for start {number}")

    async def work(self, row):
        if "dies_once" in self.payload:
            return await self.work_until_the_engine_dies(row)
        await asyncio.sleep(self.payload.get("seconds", 0.0))
        self.calls += 1
        if "starts" in self.payload:
            (worked := Path(self.payload["starts"], "worked")).touch()
            if self.payload["how"] == "after death" and not worked.with_name("start-1").exists():
                raise EngineDeadError("out of memory")
        if row["id"] in self.payload.get("deadly", ()):
            if self.payload["how"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise EngineDeadError(f"row {row['id']} was too much")
        failed = row["id"] in self.payload.get("failing", ())
        status, reason = ("error", "bad") if failed else ("ok", "")
        return replace(ROW, id=row["id"], status=status, reason=reason, detail="made")

    async def work_until_the_engine_dies(self, row):
        """A real engine's death: all that wait for it hear of it, and it answers nobody any more."""
        marker = Path(self.payload["dies_once"])
        await asyncio.sleep(0.3)
        if self.calls >= 8 and not marker.exists():
            self.dead = True
        if self.dead:
            await asyncio.sleep(0.05)
            marker.touch()
            raise EngineDeadError("the engine core died")
        self.calls += 1
        return replace(ROW, id=row["id"], status="ok", reason="", detail="made")

    def give_up(self, row, reason, detail):
        return replace(ROW, id=row["id"], status="error", reason=reason, detail=detail)

    def counts(self):
        return {"calls": self.calls}
