"""Raw rows of the places that a preference set is read from: files, folders, the sample, the hub.

Rows are read as a stream. This module knows which place is read how; formats are the business of data_files,
and what a row means that of shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from music_ray.config import SourceConfig
from music_ray.data_files import (
    SUFFIXES,
    DataFile,
    RawRow,
    file_rows,
    find_files,
    json_lines,
    naming_damage,
    parquet_columns,
)
from music_ray.errors import InputError
from music_ray.generate.shapes import COLUMNS, EXPECTED, SIDES, name_columns


def raw_rows(source: SourceConfig) -> Iterator[RawRow]:
    """All rows of one source, as a stream.

    Raises:
        InputError: a file or dataset is missing, empty, damaged, or has none of the expected columns.
    """
    if source.hub is not None:
        from music_ray.generate.hub import hub_rows

        yield from check_columns(source.hub, hub_rows(source.hub, source.revision, source.split))
    elif source.path == "sample":
        yield from _sample_rows()
    else:
        for file in find_files(str(source.path), "check the path in data.sources"):
            yield from _file_rows(file)


def source_name(source: SourceConfig) -> str:
    """The `source` of rows that have none of their own."""
    if source.name is not None:
        return source.name
    if source.hub is not None:
        return source.hub
    name = PurePosixPath(str(source.path)).name
    suffix = next((end for end in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(end)), "")
    return name.removesuffix(suffix)


def check_columns(place: str, rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """Passes rows on, and refuses a place that turns out to hold nothing to read.

    Raises:
        InputError: there was no row, or no row had both `chosen` and `rejected`.
    """
    columns: set[str] = set()
    count, has_sides = 0, False
    for row in rows:
        count += 1
        if row.value is not None and not has_sides:
            columns.update(row.value)
            has_sides = all(name in row.value for name in SIDES)
        yield row
    if not count:
        raise InputError(f"{place} is empty: name a file with preference pairs in data.sources")
    if columns and not has_sides:
        raise _no_columns(place, columns)


def _no_columns(place: str, columns: Iterable[str]) -> InputError:
    return InputError(
        f"{place} has no preference pairs: it has the columns {name_columns(set(columns))}, "
        f"but expected are {EXPECTED}"
    )


def _sample_rows() -> Iterator[RawRow]:
    folder = resources.files("music_ray") / "samples"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".jsonl"):
            place = f"sample/{file.name}"
            with file.open("rb") as stream:
                yield from check_columns(place, json_lines(place, cast(BinaryIO, stream)))


def _file_rows(file: DataFile) -> Iterator[RawRow]:
    with naming_damage(file.name):
        if file.is_parquet and not file.is_empty():
            present = parquet_columns(file)
            if not all(name in present for name in SIDES):
                raise _no_columns(file.name, present)
        yield from check_columns(file.name, file_rows(file, COLUMNS))
