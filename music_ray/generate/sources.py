"""Raw rows of the places that a preference set is read from: files, folders, the sample, the hub.

Rows are read as a stream. This module knows file formats; what a row means is the business of shapes.
Whatever is wrong with one row comes out as a row with its reason; whatever is wrong with a file is an
InputError.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from music_ray.config import SourceConfig
from music_ray.errors import InputError
from music_ray.generate.shapes import COLUMNS, EXPECTED, SIDES, name_columns
from music_ray.rundir import open_filesystem

JSON_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SUFFIXES = (".parquet", *JSON_SUFFIXES)
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was found, or the reason why it could not be read."""

    place: str
    """The file or dataset, as the user would name it."""
    number: int
    """Row of that place, from 1; of JSON lines, the line."""
    value: dict[str, Any] | None
    reason: str = ""
    detail: str = ""
    text: str = ""
    """The start of an unreadable row."""


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
        filesystem, files = find_files(str(source.path))
        for path, shown in files:
            yield from _file_rows(filesystem, path, shown)


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


def find_files(location: str, key: str = "data.sources") -> tuple[pafs.FileSystem, list[tuple[str, str]]]:
    """The data files at a location: each as the filesystem knows it, and as the user would name it.

    Args:
        key: the configuration key that names the location, for messages.

    Raises:
        InputError: there is none, or it can't be reached.
    """
    filesystem, path = open_filesystem(location)
    info = _file_info(filesystem, path, location)
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"no file or folder at {location}: check the path in {key}")
    if info.type == pafs.FileType.File:
        if not path.endswith(SUFFIXES):
            raise InputError(
                f"{location} has none of the suffixes {', '.join(SUFFIXES)}: convert or rename it"
            )
        return filesystem, [(path, location)]
    infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    below = sorted(
        entry.path[len(path) :].strip("/")
        for entry in infos
        if entry.type == pafs.FileType.File and entry.path.endswith(SUFFIXES)
    )
    files = [name for name in below if not any(part.startswith((".", "_")) for part in name.split("/"))]
    if not files:
        raise InputError(f"the folder {location} holds no {', '.join(SUFFIXES)} file: name another one")
    return filesystem, [(f"{path.rstrip('/')}/{name}", f"{location.rstrip('/')}/{name}") for name in files]


def _file_info(filesystem: pafs.FileSystem, path: str, location: str) -> pafs.FileInfo:
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(f"cannot reach {location}: {error}") from None


def _file_rows(filesystem: pafs.FileSystem, path: str, shown: str) -> Iterator[RawRow]:
    read = _parquet_rows if path.endswith(".parquet") else json_file_rows
    try:
        yield from check_columns(shown, read(filesystem, path, shown))
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        # What reading a truncated, damaged, unreadable or vanished file raises.
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read {shown}: {cause}; restore it or name another file") from None


def _parquet_rows(filesystem: pafs.FileSystem, path: str, shown: str) -> Iterator[RawRow]:
    with filesystem.open_input_file(path) as handle:
        if handle.size() == 0:
            return
        file = pq.ParquetFile(handle)
        present = file.schema_arrow.names
        if not all(name in present for name in SIDES):
            raise _no_columns(shown, present)
        used = [name for name in COLUMNS if name in present]
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=used):
            for value in _batch_values(batch):
                number += 1
                yield _parquet_row(shown, number, value)


def _parquet_row(shown: str, number: int, value: dict[str, Any] | UnicodeDecodeError) -> RawRow:
    if isinstance(value, UnicodeDecodeError):
        text = value.object.decode("utf-8", "replace")
        return RawRow(shown, number, None, "not_utf8", f"{value.reason} at byte {value.start}", text)
    return RawRow(shown, number, value)


def _batch_values(batch: pa.RecordBatch) -> list[dict[str, Any] | UnicodeDecodeError]:
    """Rows of a batch; if its text is not all UTF-8 (Parquet does not check), a row at a time."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows > 1:
            return [
                value for index in range(batch.num_rows) for value in _batch_values(batch.slice(index, 1))
            ]
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        return [error]


def json_file_rows(filesystem: pafs.FileSystem, path: str, shown: str) -> Iterator[RawRow]:
    """Rows of a file of JSON lines, plain or gzipped."""
    # compression=None: pyarrow would guess from the name, but only Python's gzip names what is damaged.
    with filesystem.open_input_stream(path, compression=None) as stream:
        lines = io.BufferedReader(cast(io.RawIOBase, stream))
        if not path.endswith(".gz"):
            yield from json_lines(shown, lines)
            return
        with closing(gzip.GzipFile(fileobj=lines)) as unzipped:
            yield from json_lines(shown, cast(BinaryIO, unzipped))


def json_lines(place: str, stream: BinaryIO | io.BufferedReader) -> Iterator[RawRow]:
    """Rows of JSON lines. Lines end at "\\n" alone: texts hold U+2028. Blank lines are no rows."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield _json_row(place, number, line)


def _json_row(place: str, number: int, line: bytes) -> RawRow:
    def refused(reason: str, detail: str) -> RawRow:
        return RawRow(place, number, None, reason, detail, line.decode("utf-8", "replace").strip())

    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return refused("not_utf8", f"{error.reason} at byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        return refused("not_json", str(error))
    if not isinstance(value, dict):
        return refused("wrong_type", f"the line is a JSON {type(value).__name__}, expected an object")
    return RawRow(place, number, value)
