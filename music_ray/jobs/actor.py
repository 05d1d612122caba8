"""The Ray Data actor: a worker with its engines, and their side of the ledger.

It gets small tasks of rows, works on so many rows at once as keep the engine full, and gives back ids
and counters; the finished rows themselves go to shards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from typing import Any

import pyarrow as pa

from music_ray.config import RunConfig
from music_ray.engines.base import EngineDeadError
from music_ray.errors import MusicRayError
from music_ray.jobs.board import DRAIN, FLUSH, GO_ON, REPORT_SECONDS
from music_ray.jobs.job import Job, Row, Worker, load_worker
from music_ray.jobs.ledger import FencedError, ShardWriter, WrittenRows, check_epoch
from music_ray.jobs.metrics import Metrics
from music_ray.rundir import RunDir

RESULT_SCHEMA = pa.schema([("id", pa.int64()), ("status", pa.string()), ("reason", pa.string())])
MISTAKE = "mistake"
"""Status of a result that is no row: its reason is a message for the user, and nothing can go on."""
SKIPPED = "skipped"
"""The same for a task that was not begun: Ray Data would not pass on an empty result."""
STORAGE = "storage"
"""The same for a store that takes no more shards."""
SUSPECTS_AT_ONCE = (8, 1)
"""Rows that were in flight when an actor died go into an engine again so many at once: after one death,
and after more. Only so can the one be found that kills its engine."""
UNDECLARED_PER_DEATH = 3
"""A row counts as deadly after generate.max_engine_deaths deaths that its engine declared. An actor that
vanishes (a spot node taken away, kill -9) says nothing, and counts a third."""


class JobActor:
    """Callable class for map_batches; its engines are ready when the constructor returns."""

    def __init__(self, job: Job, config_json: str, board: Any) -> None:
        self._name = uuid.uuid4().hex
        self._board = board
        self._mistake = ""
        board.report.remote(self._name, {})  # its life, and what it costs, begins before the engine is up
        try:
            self._start(job, config_json)
        except MusicRayError as error:
            # Ray would start the actor again and again; the first task tells the driver instead.
            self._mistake = str(error)

    def _start(self, job: Job, config_json: str) -> None:
        config = RunConfig.model_validate_json(config_json)
        run = RunDir(config)
        generate = config.generate
        self._metrics = Metrics(config.name)
        check_epoch(run, job.folder)
        self._worker: Worker = load_worker(job.worker)(config, job.run_epoch, job.payload, self._metrics)
        self._written = WrittenRows(run, job.folder, job.run_epoch)
        self._ledger = ShardWriter(
            run,
            job.folder,
            job.schema,
            job.run_epoch,
            flush_rows=generate.flush_rows,
            flush_seconds=generate.flush_seconds,
            on_shard=self._metrics.shard_written,
        )
        self._max_deaths = generate.max_engine_deaths
        self._room = asyncio.Semaphore(generate.rows_in_flight(config.engine))
        self._suspects = [asyncio.Semaphore(number) for number in SUSPECTS_AT_ONCE]
        self._in_engine: set[int] = set()
        self._rows = {"ok": 0, "error": 0}
        self._directive = GO_ON
        self._reporting: asyncio.Task[None] | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """One task: a table of input rows in, a table of RESULT_SCHEMA out."""
        if self._mistake:
            return _result([{"id": 0, "status": MISTAKE, "reason": self._mistake}])
        if self._reporting is None:
            self._reporting = asyncio.create_task(self._report())
        rows = batch.to_pylist()
        ids = [row["id"] for row in rows]
        self._directive, again, suspects = await self._board.begin.remote(ids)
        if self._directive != GO_ON:
            return _result([{"id": 0, "status": SKIPPED, "reason": ""}])
        # The actor that had this task may have died after it wrote a shard and before it could say so.
        there = await asyncio.to_thread(self._written.look_up, ids) if again else []
        rows = [row for row in rows if row["id"] not in {one["id"] for one in there}]
        self._ledger.begin(len(rows))
        try:
            done = await asyncio.gather(*(self._one(row, suspects.get(row["id"])) for row in rows))
        except EngineDeadError as error:
            await self._die(str(error))
        except (FencedError, MusicRayError) as error:
            return _result([{"id": 0, "status": MISTAKE, "reason": str(error)}])
        except OSError as error:
            return _result([{"id": 0, "status": STORAGE, "reason": str(error)}])
        finished = [row for row in done if row is not None]
        # With each task as well: Ray ends an actor that has no more tasks, and its last counts with it.
        self._board.report.remote(self._name, self._counts(), self._obeyed())
        there += [{"id": row.id, "status": row.status, "reason": row.reason} for row in finished]
        return _result(there or [{"id": 0, "status": SKIPPED, "reason": ""}])

    async def _one(self, row: dict[str, Any], suspect: tuple[int, int] | None) -> Row | None:
        """One row, durable in a shard; None when it was not begun."""
        if suspect is None:
            async with self._room:
                done = await self._work(row)
            return await self._keep(done)
        starts, declared = suspect
        async with self._suspects[min(starts, len(self._suspects)) - 1]:
            if declared >= self._max_deaths or starts >= UNDECLARED_PER_DEATH * self._max_deaths:
                deaths = max(declared, starts)
                done = self._worker.give_up(row, "engine_died", f"{deaths} engines died with it")
            else:
                await self._board.enter.remote(row["id"])
                done = await self._work(row)
            # At once: the next suspect may take this one's finished row down with it.
            return await self._keep(done, at_once=True)

    async def _keep(self, done: Row | None, at_once: bool = False) -> Row | None:
        if done is None:
            self._ledger.begin(-1)
            return None
        self._rows[done.status] += 1
        self._metrics.count_row(done.status, done.reason)
        await self._ledger.add(done, at_once=at_once)
        return done

    async def _work(self, row: dict[str, Any]) -> Row | None:
        if self._directive != GO_ON:
            return None
        self._in_engine.add(row["id"])
        done = await self._worker.work(row)
        self._in_engine.discard(row["id"])
        return done

    async def _die(self, reason: str) -> None:
        """The process is of no more use: what is finished is saved, and Ray brings up another."""
        sys.stderr.write(f"engine is dead, its actor ends: {reason}\n")
        await self._board.engine_died.remote(sorted(self._in_engine), reason)
        try:
            await self._ledger.flush()
        finally:
            os._exit(1)

    async def _report(self) -> None:
        while True:
            self._metrics.in_flight(len(self._in_engine))
            self._metrics.flush()
            self._directive = await self._board.report.remote(self._name, self._counts(), self._obeyed())
            if self._directive == FLUSH:
                with contextlib.suppress(OSError, FencedError):  # those who wait for the rows are told
                    await self._ledger.flush()
            await asyncio.sleep(REPORT_SECONDS)

    def _counts(self) -> dict[str, int]:
        return {
            **self._worker.counts(),
            **self._rows,
            "in_flight": len(self._in_engine),
            "shards": self._ledger.shards,
        }

    def _obeyed(self) -> str:
        """The word that has been carried out: draining ends when nothing is in flight."""
        return self._directive if self._directive != DRAIN or not self._in_engine else GO_ON


def _result(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)
