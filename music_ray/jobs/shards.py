"""Reading the ledger: which ids are done, and the one row that counts of each.

An id can have several rows (a task that was tried again after its shard was written, an error that was
tried again): an ok row beats an error, the first ok row beats a later one, and the last error beats an
earlier one. The index holds about 22 bytes an id, so that ten million fit into 220 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.rundir import RunDir

COMPACTS = b"music_ray.compacts"
"""Metadata of a compacted shard: the names of those it replaces, which are data no more."""
_READERS = 16
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class ShardIndex:
    """Where the rows are that count, in order of id."""

    paths: list[str]
    ids: np.ndarray
    """int64, sorted, unique."""
    is_error: np.ndarray
    """bool, beside ids."""
    shard: np.ndarray
    """int32, beside ids: index into paths."""
    row: np.ndarray
    """int32, beside ids: position in the shard."""
    duplicate_rows: int

    def ids_done(self, *, errors_too: bool = True) -> np.ndarray:
        """Sorted int64 ids that need not be made again."""
        return self.ids if errors_too else self.ids[~self.is_error]

    def only(self, ids: np.ndarray) -> ShardIndex:
        """The part of the index that is about these ids (sorted int64)."""
        keep = is_among(self.ids, ids)
        ids, is_error, shard, row = (part[keep] for part in (self.ids, self.is_error, self.shard, self.row))
        return ShardIndex(self.paths, ids, is_error, shard, row, self.duplicate_rows)


def live_shards(run: RunDir, folder: tuple[str, ...]) -> list[str]:
    """Paths of the shards that count: those that a compacted one replaces are left out."""
    # By epoch, then name: a compacted shard stands where the first that it replaces stood.
    paths = sorted(run.parquet_files(*folder), key=lambda path: path.rpartition("/")[2][1:])
    compacted = [path for path in paths if path.rpartition("/")[2].startswith("c")]
    replaced: set[str] = set()
    for path in compacted:
        with run.open_parquet(path) as file:
            names = (file.schema_arrow.metadata or {}).get(COMPACTS, b"")
        replaced.update(names.decode().split())
    return [path for path in paths if path.rpartition("/")[2] not in replaced]


def read_index(run: RunDir, folder: tuple[str, ...]) -> ShardIndex:
    """One pass over ids and statuses, not over rows."""
    paths = live_shards(run, folder)

    def read(path: str) -> tuple[np.ndarray, np.ndarray]:
        with run.open_parquet(path) as file:
            table = file.read(columns=["id", "status"])
        return table["id"].to_numpy(), (table["status"].to_numpy(zero_copy_only=False) != "ok").astype(bool)

    with ThreadPoolExecutor(_READERS) as pool:
        parts = list(pool.map(read, paths))
    lengths = [len(ids) for ids, _ in parts]
    ids = _joined([ids for ids, _ in parts], np.int64)
    is_error = _joined([errors for _, errors in parts], np.bool_)
    shard = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
    row = _joined([np.arange(length) for length in lengths], np.int32)
    order = np.arange(len(ids), dtype=np.int64)
    rank = np.where(is_error, len(ids) - order, order)  # errors: the last one first
    best = np.lexsort((rank, is_error, ids))
    first = np.ones(len(ids), dtype=bool)
    first[1:] = ids[best][1:] != ids[best][:-1]
    best = best[first]
    return ShardIndex(paths, ids[best], is_error[best], shard[best], row[best], len(ids) - len(best))


def read_batches(
    run: RunDir, index: ShardIndex, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows that count, shard by shard, a record batch at a time in memory."""
    by_shard = np.argsort(index.shard, kind="stable")
    starts = np.searchsorted(index.shard[by_shard], np.arange(len(index.paths) + 1))
    for number, path in enumerate(index.paths):
        wanted = np.sort(index.row[by_shard[starts[number] : starts[number + 1]]])
        if not len(wanted):
            continue
        seen = 0
        with run.open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                inside = wanted[(wanted >= seen) & (wanted < seen + batch.num_rows)] - seen
                seen += batch.num_rows
                if len(inside):
                    yield batch if len(inside) == batch.num_rows else batch.take(pa.array(inside))


def read_rows(run: RunDir, index: ShardIndex, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows that count, one by one."""
    for batch in read_batches(run, index, columns):
        yield from batch.to_pylist()


def is_among(values: np.ndarray, sorted_ids: np.ndarray) -> np.ndarray:
    """bool mask: which values are in a sorted array (without a set of Python numbers)."""
    if not len(sorted_ids):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(sorted_ids, values), len(sorted_ids) - 1)
    return sorted_ids[at] == values


def _joined(parts: list[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, dtype=kind)
