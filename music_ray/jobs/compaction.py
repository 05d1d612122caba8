"""Many small shards become few large ones, so that a run of millions is quick to list and to read.

A compacted shard names those it replaces in its metadata, and readers leave them out from the moment
it is there: a crash between writing it and removing them neither loses a row nor doubles one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from music_ray.jobs.shards import COMPACTS, live_shards
from music_ray.progress import say
from music_ray.rundir import RunDir, digest

MIN_SHARDS = 64
"""Fewer shards than this are left as they are."""
TARGET_BYTES = 8 * 2**20
"""Size of a compacted shard, compressed; the driver holds one while it is made."""


def compact(
    run: RunDir, folder: tuple[str, ...], *, min_shards: int = MIN_SHARDS, target_bytes: int = TARGET_BYTES
) -> int:
    """Joins small shards; call it only where nobody writes shards any more.

    Returns:
        how many shards there are now.
    """
    _remove_replaced(run, folder)
    paths = live_shards(run, folder)
    sizes = {info.path: info.size for info in run.fs.get_file_info(paths)} if paths else {}
    small = sum(size < target_bytes // 2 for size in sizes.values())
    if small < min_shards:
        return len(paths)
    say(f"compaction: joining {small} small shards of {run.display(*folder)}")
    for group in _groups(run, paths, sizes, target_bytes):
        if len(group) > 1:
            _join(run, folder, group)
    return len(live_shards(run, folder))


def _groups(run: RunDir, paths: list[str], sizes: dict[str, int], target_bytes: int) -> Iterator[list[str]]:
    """Small neighbours that make one shard together.

    Those of another version's schema end a group, and so does a large shard: rows keep their order, which
    decides which row of an id counts.
    """
    group: list[str] = []
    held, schema = 0, None
    for path in paths:
        is_large = sizes[path] >= target_bytes // 2
        before, schema = schema, None if is_large else _schema_of(run, path)
        if group and (is_large or schema != before or held >= target_bytes):
            yield group
            group, held = [], 0
        if not is_large:
            group.append(path)
            held += sizes[path]
    yield group


def _schema_of(run: RunDir, path: str) -> pa.Schema:
    with run.open_parquet(path) as file:
        return file.schema_arrow


def _join(run: RunDir, folder: tuple[str, ...], paths: list[str]) -> None:
    names = [path.rpartition("/")[2] for path in paths]
    sink = pa.BufferOutputStream()
    writer: pq.ParquetWriter | None = None
    for path in paths:
        with run.open_parquet(path) as file:
            table = file.read()
        if writer is None:
            metadata = {**(table.schema.metadata or {}), COMPACTS: " ".join(names).encode()}
            schema = table.schema.with_metadata(metadata)
            writer = pq.ParquetWriter(sink, schema, compression="zstd")
        writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=1024)
    if writer is not None:
        writer.close()
    # The name of the first, so that it stands in its place (live_shards).
    first = names[0][1:].removesuffix(".parquet")
    run.write_bytes(sink.getvalue(), *folder, f"c{first}-{digest(names)}.parquet")
    for path in paths:
        run.fs.delete_file(path)


def _remove_replaced(run: RunDir, folder: tuple[str, ...]) -> None:
    """Finishes what an earlier compaction could not."""
    live = set(live_shards(run, folder))
    for path in run.parquet_files(*folder):
        if path not in live:
            run.fs.delete_file(path)
