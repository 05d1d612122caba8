"""The shards are the ledger: a rollout is done exactly when a finished shard holds its id.

An actor adds each rollout as it ends and writes what it holds as one immutable shard, after so many
rows or so many seconds, or when it has nothing else to do. A task reports its ids to the driver only
after they lie in a shard. A crash therefore costs what was in flight since the last flush, and a
restart needs one pass over ids.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import ROLLOUT_SCHEMA, Rollout, to_table

SHARDS = ("rollouts", "shards")


def finished_ids(run: RunDir) -> np.ndarray:
    """Ids (int64, sorted, unique) of all rollouts that shards hold: one pass over ids, not over rows."""
    found = []
    for path in run.parquet_files(*SHARDS):
        with run.open_parquet(path) as file:
            found.append(file.read(columns=["id"]).column("id").to_numpy())
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


class ShardWriter:
    """One actor's side of the ledger. All methods run on one event loop."""

    def __init__(self, run: RunDir, run_epoch: int, *, flush_rows: int, flush_seconds: float) -> None:
        self._run = run
        self._run_epoch = run_epoch
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._buffer: list[Rollout] = []
        self._oldest = 0.0
        self._in_flight = 0
        self._writing = asyncio.Lock()
        self._clock: asyncio.Task[None] | None = None

    def begin(self, count: int) -> None:
        """Says that `count` rollouts are on their way."""
        self._in_flight += count

    async def add(self, rollout: Rollout) -> None:
        """Takes one finished rollout; flushes when it is time to."""
        if not self._buffer:
            self._oldest = time.monotonic()
        self._buffer.append(rollout)
        self._in_flight -= 1
        if self._is_due():
            await self.flush()
        elif self._clock is None or self._clock.done():
            self._clock = asyncio.create_task(self._flush_in_time())

    async def _flush_in_time(self) -> None:
        """Flushes what has waited long enough, also while no other rollout ends."""
        while self._buffer:
            await asyncio.sleep(max(0.0, self._oldest + self._flush_seconds - time.monotonic()))
            if self._is_due():
                try:
                    await self.flush()
                except OSError:
                    return  # the rows stay: the next add or durable tries again, and tells its task

    async def durable(self, rollouts: list[Rollout]) -> None:
        """Returns when all these rollouts lie in a shard."""
        waiting = {rollout.id for rollout in rollouts}
        while any(rollout.id in waiting for rollout in self._buffer) or self._writing.locked():
            if self._is_due():
                await self.flush()
            else:
                await asyncio.sleep(0.05)

    async def flush(self) -> None:
        """Writes what is held as one shard, named by the run epoch and a hash of its ids."""
        async with self._writing:
            rows = list(self._buffer)
            if not rows:
                return
            name = f"e{self._run_epoch:04d}-{digest_ids([row.id for row in rows])}.parquet"
            table = to_table(rows, ROLLOUT_SCHEMA)
            await asyncio.to_thread(self._run.write_table, table, *SHARDS, name)
            del self._buffer[: len(rows)]  # only now: rows that came meanwhile stay
            self._oldest = time.monotonic()

    def _is_due(self) -> bool:
        if not self._buffer:
            return False
        waited = time.monotonic() - self._oldest >= self._flush_seconds
        return len(self._buffer) >= self._flush_rows or waited or self._in_flight == 0
