"""The shards are the ledger: a row is done exactly when a finished shard holds its id.

An actor adds each row as it ends and writes what it holds as one immutable shard, after so many rows
or so many seconds, or when it has nothing else to do. A task reports its ids to the driver only after
they lie in a shard. A crash therefore costs what was in flight since the last flush, and a restart
needs one pass over ids.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.errors import InputError
from music_ray.jobs.shards import is_among
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import to_table
from music_ray.storage import patiently

EPOCH_FILE = "epoch"
"""Beside the shards: the number of the present start. Actors of an older one may not write any more."""


class FencedError(Exception):
    """Another start of the stage has taken over; this actor's work is not wanted any more."""


def open_epoch(run: RunDir, folder: tuple[str, ...], run_epoch: int) -> None:
    """Makes this start the only one that may write shards."""
    run.write_text(str(run_epoch), *folder, EPOCH_FILE)


def check_epoch(run: RunDir, folder: tuple[str, ...]) -> None:
    """Asks, before an engine is loaded for nothing, whether this machine sees the driver's run folder.

    Raises:
        InputError: it does not.
    """
    if not run.exists(*folder, EPOCH_FILE):
        raise InputError(
            f"{run.display()} as the driver sees it is not there on {socket.gethostname()}: set runs_dir to "
            "a URI such as s3://bucket/runs, or to a path on storage that all nodes share"
        )


class ShardWriter:
    """One actor's side of the ledger. All methods run on one event loop."""

    def __init__(
        self,
        run: RunDir,
        folder: tuple[str, ...],
        schema: pa.Schema,
        run_epoch: int,
        *,
        flush_rows: int,
        flush_seconds: float,
        on_shard: Callable[[list[Any]], None] = lambda rows: None,
    ) -> None:
        self._on_shard = on_shard
        self._run, self._folder, self._schema = run, folder, schema
        self._run_epoch = run_epoch
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._buffer: list[Any] = []
        self._written: asyncio.Future[None] | None = None
        """Done when the rows that are in the buffer now lie in a shard."""
        self._oldest = 0.0
        self._in_flight = 0
        self._clock: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self.shards = 0
        """Shards written so far."""

    def begin(self, count: int) -> None:
        """Says that `count` rows are on their way."""
        self._in_flight += count

    async def add(self, row: Any, at_once: bool = False) -> None:
        """Takes one finished row; returns when it lies in a shard.

        Args:
            at_once: writes a shard now, with whatever else is held.

        Raises:
            OSError: the shard can't be written; its rows are not done, and a restart makes them again.
            FencedError: another start of the stage has taken over.
        """
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            self._oldest = time.monotonic()
        self._buffer.append(row)
        self._in_flight -= 1
        written = self._written
        if at_once or len(self._buffer) >= self._flush_rows or self._in_flight == 0:
            await self.flush()
        elif self._clock is None or self._clock.done():
            self._clock = asyncio.create_task(self._flush_in_time())
        await asyncio.shield(written)

    async def _flush_in_time(self) -> None:
        """Flushes what has waited long enough, also while no other row ends."""
        while self._buffer:
            await asyncio.sleep(max(0.0, self._oldest + self._flush_seconds - time.monotonic()))
            is_due = self._buffer and time.monotonic() - self._oldest >= self._flush_seconds
            if is_due and await self._flush() is not None:
                return  # those who wait for the rows have the error, and raise it

    @property
    def holds_rows(self) -> bool:
        """Whether rows wait to be written, or are being written."""
        return self._written is not None or self._writing.locked()

    async def flush(self) -> None:
        """Writes what is held as one shard, named by the run epoch and a hash of its ids.

        Raises:
            as add.
        """
        if (error := await self._flush()) is not None:
            raise error

    async def _flush(self) -> Exception | None:
        """What went wrong, which all who wait for the rows are told."""
        async with self._writing:
            rows, written = self._buffer, self._written
            if written is None:
                return None
            self._buffer, self._written = [], None
            try:
                await asyncio.to_thread(self._write, rows)
            except Exception as error:
                written.set_exception(error)
                written.exception()  # so that asyncio does not complain where nobody waits
                return error
            written.set_result(None)
            self.shards += 1
            self._on_shard(rows)
            return None

    def _write(self, rows: list[Any]) -> None:
        name = f"e{self._run_epoch:04d}-{digest_ids([row.id for row in rows])}.parquet"
        table = to_table(rows, self._schema)

        def write() -> None:
            self._check_epoch()
            self._run.write_table(table, *self._folder, name)

        patiently(write, f"shard {name}")

    def _check_epoch(self) -> None:
        if int(self._run.read_text(*self._folder, EPOCH_FILE)) != self._run_epoch:
            raise FencedError(f"start {self._run_epoch} is over: another one has begun")


class WrittenRows:
    """What the shards of this start hold, for rows that may have been written by an actor that died.

    Keeps ids alone (8 bytes a row), and lists the folder once for all tasks that ask at the same time.
    """

    def __init__(self, run: RunDir, folder: tuple[str, ...], run_epoch: int) -> None:
        self._run, self._folder = run, folder
        self._prefix = f"e{run_epoch:04d}-"
        self._ids: dict[str, np.ndarray] = {}
        """Sorted ids of each shard that was read."""
        self._listed = 0.0
        # Not the loop's own threads: these must stay free for flushing.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="written-rows")

    async def look_up(self, ids: list[int]) -> list[dict[str, Any]]:
        """`id`, `status` and `reason` of those that lie in a shard."""
        asked = time.monotonic()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look_up, ids, asked)

    def _look_up(self, ids: list[int], asked: float) -> list[dict[str, Any]]:
        if self._listed <= asked:
            patiently(self._read_new_shards, "shards of this start")
        wanted = np.array(sorted(ids), dtype=np.int64)
        found = {}
        for path, there in self._ids.items():
            if is_among(wanted, there).any():
                with self._run.open_parquet(path) as file:
                    table = file.read(columns=["id", "status", "reason"])
                rows = table.filter(pa.array(is_among(table["id"].to_numpy(), wanted))).to_pylist()
                found.update({row["id"]: row for row in rows})
        return list(found.values())

    def _read_new_shards(self) -> None:
        listed = time.monotonic()
        for path in self._run.parquet_files(*self._folder):
            if path not in self._ids and path.rpartition("/")[2].startswith(self._prefix):
                with self._run.open_parquet(path) as file:
                    self._ids[path] = np.sort(file.read(columns=["id"])["id"].to_numpy())
        self._listed = listed
