"""The Ray Data actor: a worker with its engines, and their side of the ledger.

It gets small tasks of rows, works on so many rows at once as keep the engine full, and gives back ids
and counters; the finished rows themselves go to shards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from typing import Any

import pyarrow as pa

from music_ray.config import RunConfig
from music_ray.engines.base import EngineDeadError
from music_ray.errors import MusicRayError
from music_ray.jobs.admission import Admission, Suspect
from music_ray.jobs.board import DRAIN, FLUSH, GO_ON, MOST_FAILED_STARTS, REPORT_SECONDS
from music_ray.jobs.job import Job, Row, Worker, load_worker
from music_ray.jobs.ledger import FencedError, ShardWriter, WrittenRows, check_epoch
from music_ray.jobs.metrics import Metrics
from music_ray.jobs.room import rows_at_once
from music_ray.rundir import RunDir
from music_ray.visible import on_one_line

RESULT_SCHEMA = pa.schema([("id", pa.int64()), ("status", pa.string()), ("reason", pa.string())])
MISTAKE = "mistake"
"""Status of a result that is no row: its reason is a message for the user, and nothing can go on."""
SKIPPED = "skipped"
"""The same for a task that was not begun: Ray Data would not pass on an empty result."""
STORAGE = "storage"
"""The same for a store that takes no more shards."""
START_AGAIN_SECONDS = 5.0
"""Before an engine that did not come up is tried again, and twice as long before it is once more: a hub, an
endpoint or a store that is away for a moment is then back."""
LAST_WORD_SECONDS = 10.0
"""How long a dying actor waits for the board to hear which rows its engine died with."""


class JobActor:
    """Callable class for map_batches; its engines are ready when the constructor returns."""

    def __init__(self, job: Job, config_json: str, board: Any) -> None:
        self._name = uuid.uuid4().hex
        self._board = board
        self._mistake = ""
        # Its life, and what it costs, begins before the engine is up.
        with _Heartbeat(board, self._name):
            try:
                self._start(job, config_json)
            except Exception as error:  # raised again, or told by the first task
                self._fail_to_start(error)

    def _fail_to_start(self, error: Exception) -> None:
        """Before anything has worked a user's mistake ends the job at once; afterwards it is one node's, or
        passes, and another start may succeed.

        Raises:
            Exception: the error itself. Ray Data has a new actor made in this one's place, until
                MOST_FAILED_STARTS of them have failed in a row.
        """
        import ray

        in_a_row = ray.get(self._board.start_failed.remote(str(error), socket.gethostname()))
        if not in_a_row and isinstance(error, MusicRayError):
            # Ray would start the actor again and again; the first task tells the driver instead.
            self._mistake = str(error)
            self._board.report.remote(self._name, {}, FLUSH)
            return
        if not 0 < in_a_row <= MOST_FAILED_STARTS:
            raise error
        sys.stderr.write(f"engine could not be started, it is tried again: {on_one_line(str(error))}\n")
        time.sleep(START_AGAIN_SECONDS * 2 ** (in_a_row - 1))
        if ray.get_runtime_context().was_current_actor_reconstructed:
            # Its tasks wait for it, and an error would fail them and so the job. Of a process that just ends
            # Ray starts another, on any node.
            os._exit(1)
        raise error

    def _start(self, job: Job, config_json: str) -> None:
        config = RunConfig.model_validate_json(config_json)
        run = RunDir(config)
        generate = config.generate
        self._metrics = Metrics(config.name)
        check_epoch(run, job.folder)
        self._worker: Worker = load_worker(job.worker)(config, job.run_epoch, job.payload, self._metrics)
        room = rows_at_once(job, config)  # now that the engine is up: its own number, on its own device
        self._written = WrittenRows(run, job.folder, job.run_epoch)
        self._ledger = ShardWriter(
            run,
            job.folder,
            job.schema,
            job.run_epoch,
            # More than half of what is worked on would wait for rows that can't begin before it is written.
            flush_rows=min(generate.flush_rows, max(1, room // 2)),
            flush_seconds=generate.flush_seconds,
            on_shard=self._count,
        )
        self._admission = Admission(self._board, room, generate.max_engine_deaths)
        self._in_engine: set[int] = set()
        self._rows = {"ok": 0, "error": 0}
        self._directive = self._obeyed = GO_ON
        self._dying = False
        self._reporting: asyncio.Task[None] | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """One task: a table of input rows in, a table of RESULT_SCHEMA out."""
        if self._mistake:
            return _result([{"id": 0, "status": MISTAKE, "reason": self._mistake}])
        if self._reporting is None:
            self._reporting = asyncio.create_task(self._report())
        elif self._reporting.done():
            self._reporting.result()  # a bug in it must not go unnoticed
        rows = batch.to_pylist()
        try:
            there = await self._task(rows)
        except EngineDeadError as error:
            await self._die(str(error))
        except (FencedError, MusicRayError) as error:
            return _result([{"id": 0, "status": MISTAKE, "reason": str(error)}])
        except OSError as error:
            return _result([{"id": 0, "status": STORAGE, "reason": str(error)}])
        # With each task as well: Ray ends an actor that has no more tasks, and its last counts with it.
        self._board.report.remote(self._name, self._counts(), self._obeyed)
        return _result(there or [{"id": 0, "status": SKIPPED, "reason": ""}])

    async def _task(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results of the rows that lie in a shard at the end."""
        ids = [row["id"] for row in rows]
        self._directive, again, suspects = await self._admission.begin(ids)
        if self._directive != GO_ON:
            return []
        # The actor that had this task may have died after it wrote a shard and before it could say so.
        there = await self._written.look_up(ids) if again else []
        known = {one["id"] for one in there}
        self._admission.leave(len(known - suspects.keys()))
        rows = [row for row in rows if row["id"] not in known]
        self._ledger.begin(len(rows))
        done = await asyncio.gather(*(self._one(row, suspects.get(row["id"])) for row in rows))
        return there + [
            {"id": row.id, "status": row.status, "reason": row.reason} for row in done if row is not None
        ]

    async def _one(self, row: dict[str, Any], suspect: Suspect | None) -> Row | None:
        """One row, durable in a shard; None when it was not begun."""
        if suspect is None:
            try:
                done = await self._work(row)
            finally:
                self._admission.leave(1)
            return await self._keep(done)
        async with self._admission.place_of(suspect):
            if self._admission.is_deadly(suspect):
                deaths = max(suspect)
                done = self._worker.give_up(row, "engine_died", f"{deaths} engines died with it")
            else:
                await self._board.enter.remote(row["id"])
                done = await self._work(row)
            # Where it is alone, at once: the next one may take this one's finished row down with it.
            return await self._keep(done, at_once=self._admission.is_alone(suspect))

    async def _keep(self, done: Row | None, at_once: bool = False) -> Row | None:
        if done is None:
            self._ledger.begin(-1)
            return None
        await self._ledger.add(done, at_once=at_once)
        return done

    async def _work(self, row: dict[str, Any]) -> Row | None:
        if self._dying:
            await asyncio.Event().wait()  # until the process ends
        if self._directive != GO_ON:
            return None
        self._in_engine.add(row["id"])
        self._metrics.row_begun()
        done = await self._worker.work(row)
        self._in_engine.discard(row["id"])
        return done

    async def _die(self, reason: str) -> None:
        """The process is of no more use: what is finished is saved, and Ray brings up another.

        One engine's death is met by every row that waits for it; it is declared once, for all of them.
        """
        if self._dying:
            await asyncio.Event().wait()
        self._dying = True
        sys.stderr.write(f"engine is dead, its actor ends: {on_one_line(reason)}\n")
        declared = self._board.engine_died.remote(sorted(self._in_engine), reason)
        try:
            await asyncio.wait_for(asyncio.wrap_future(declared.future()), LAST_WORD_SECONDS)
            await self._ledger.flush()
        finally:
            os._exit(1)

    async def _report(self) -> None:
        from ray.exceptions import RayError

        while True:
            self._metrics.in_flight(len(self._in_engine))
            self._metrics.flush()
            with contextlib.suppress(RayError):  # the board can't be reached right now: the next time
                self._directive = await self._board.report.remote(self._name, self._counts(), self._obeyed)
            if self._directive == FLUSH:
                with contextlib.suppress(OSError, FencedError):  # those who wait for the rows are told
                    await self._ledger.flush()
            if self._directive != DRAIN or not (self._in_engine or self._ledger.holds_rows):
                self._obeyed = self._directive
            await asyncio.sleep(REPORT_SECONDS)

    def _count(self, rows: list[Row]) -> None:
        """Rows count once they lie in a shard: what is lost with an actor is made, and counted, again."""
        self._metrics.shard_written(len(rows))
        for row in rows:
            self._rows[row.status] += 1
            self._metrics.count_row(row.status, row.reason)

    def _counts(self) -> dict[str, int]:
        return {
            **self._worker.counts(),
            **self._rows,
            "in_flight": len(self._in_engine),
            "shards": self._ledger.shards,
        }


class _Heartbeat:
    """Says that an actor lives while its constructor, which may load a model for minutes, can't."""

    def __init__(self, board: Any, name: str) -> None:
        self._board, self._name = board, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        self._board.report.remote(self._name, {})
        while not self._over.wait(REPORT_SECONDS):
            self._board.report.remote(self._name, {})


def _result(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)
