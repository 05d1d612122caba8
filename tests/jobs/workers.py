"""Workers for jobs on a real Ray: they answer at once, fail, or kill their process on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

from music_ray.engines.base import EngineDeadError
from tests.jobs.test_ledger import ROW


class TestWorker:
    """payload: deadly (ids that kill), how ('declared' or 'killed'), failing (ids), seconds a row."""

    __test__ = False

    def __init__(self, config, run_epoch, payload, metrics):
        self.payload, self.calls = payload, 0

    async def work(self, row):
        await asyncio.sleep(self.payload.get("seconds", 0.0))
        self.calls += 1
        if row["id"] in self.payload.get("deadly", ()):
            if self.payload["how"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise EngineDeadError(f"row {row['id']} was too much")
        failed = row["id"] in self.payload.get("failing", ())
        status, reason = ("error", "bad") if failed else ("ok", "")
        return replace(ROW, id=row["id"], status=status, reason=reason, detail="made")

    def give_up(self, row, reason, detail):
        return replace(ROW, id=row["id"], status="error", reason=reason, detail=detail)

    def counts(self):
        return {"calls": self.calls}
