"""The input of a job as it reads it: numbered Parquet files in a folder of the run."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import pyarrow as pa

from music_ray.rundir import RunDir


def write_inputs(
    run: RunDir,
    folder: tuple[str, ...],
    rows: Iterable[dict[str, Any]],
    schema: pa.Schema,
    rows_per_file: int,
) -> int:
    """Writes rows as part-00000.parquet and so on, in their order; what the folder held before goes.

    Args:
        rows_per_file: at most; as many are in memory at once.

    Returns:
        how many rows there were; without any there is no file.
    """
    run.clear(*folder)
    rest, total, number = iter(rows), 0, 0
    while batch := list(islice(rest, rows_per_file)):
        table = pa.Table.from_pylist(batch, schema=schema)
        run.write_table(table, *folder, f"part-{number:05d}.parquet")
        total, number = total + len(batch), number + 1
    return total
