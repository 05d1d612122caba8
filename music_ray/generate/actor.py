"""The Ray Data actor: an engine, the rollouts on it, and its side of the ledger.

It gets small tasks of seeds, rolls all of a task's seeds out at once, and gives back ids and
counters; the rows themselves go to shards.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.config import RunConfig
from music_ray.engines import make_engine
from music_ray.engines.base import EngineDeadError, RoleEngines
from music_ray.errors import MusicRayError
from music_ray.generate.board import REPORT_SECONDS, CountingEngine
from music_ray.generate.ledger import ShardWriter, finished_ids
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.rundir import RunDir
from music_ray.schema import Rollout, seed_from_row

RESULT_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("completion_tokens", pa.int64()),
    ]
)
MISTAKE = "mistake"
"""Status of a result that is no rollout: its reason is a message for the user, and nothing can go on."""


class RolloutActor:
    """Callable class for map_batches; its engine is ready when the constructor returns."""

    def __init__(self, config_json: str, run_epoch: int, pool_messages: list[str], board: Any) -> None:
        self._mistake = ""
        self._board = board
        self._reporting: asyncio.Task[None] | None = None
        try:
            self._start(config_json, run_epoch, pool_messages)
        except MusicRayError as error:
            # Ray would start the actor again and again; the first task tells the driver instead.
            self._mistake = str(error)

    def _start(self, config_json: str, run_epoch: int, pool_messages: list[str]) -> None:
        self._config = RunConfig.model_validate_json(config_json)
        self._run = RunDir(self._config)
        contrast = self._config.contrast
        pool = NeighbourPool(pool_messages, contrast.max_similarity) if contrast.mode == "neighbour" else None
        self._engine = CountingEngine(make_engine(self._config.engine))
        self._node = socket.gethostname()
        self._cast = Cast.of(self._config, RoleEngines.same(self._engine), pool, run_epoch)
        # Read after the engine is up: a restarted actor must see what its predecessor flushed.
        self._finished = finished_ids(self._run)
        generate = self._config.generate
        self._ledger = ShardWriter(
            self._run, run_epoch, flush_rows=generate.flush_rows, flush_seconds=generate.flush_seconds
        )

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """One task: a table of SeedContext rows in, a table of RESULT_SCHEMA out."""
        if self._mistake:
            return _result_table([{"id": 0, "status": MISTAKE, "reason": self._mistake}])
        seeds = [seed_from_row(row) for row in batch.to_pylist()]
        seeds = [seed for seed in seeds if not self._is_finished(seed.id)]
        if self._reporting is None:
            self._reporting = asyncio.create_task(self._report())
        self._ledger.begin(len(seeds))
        try:
            rollouts = await asyncio.gather(*(self._one(seed) for seed in seeds))
        except EngineDeadError as error:
            # The process is of no more use: what is finished is saved, and Ray brings up another.
            sys.stderr.write(f"engine is dead, its actor ends: {error}\n")
            await self._ledger.flush()
            os._exit(1)
        await self._ledger.durable(rollouts)
        return _result(rollouts)

    async def _report(self) -> None:
        while True:
            self._board.report.remote(str(os.getpid()) + self._node, dict(self._engine.counts))
            await asyncio.sleep(REPORT_SECONDS)

    async def _one(self, seed: Any) -> Rollout:
        rollout = await roll_out(seed, self._cast)
        await self._ledger.add(rollout)
        return rollout

    def _is_finished(self, seed_id: int) -> bool:
        at = int(np.searchsorted(self._finished, seed_id))
        return at < len(self._finished) and int(self._finished[at]) == seed_id


def _result(rollouts: list[Rollout]) -> pa.Table:
    return _result_table(
        [
            {
                "id": rollout.id,
                "status": rollout.status,
                "reason": rollout.reason,
                "completion_tokens": sum(call.completion_tokens for call in rollout.calls),
            }
            for rollout in rollouts
        ]
    )


def _result_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)
