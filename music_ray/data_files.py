"""Data files that a user names, as Parquet or JSON lines: which there are, and their rows as a stream.

Knows file formats and damage, not what a row means. Whatever is wrong with one row comes out as a row with
its reason; whatever is wrong with a file is an InputError.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from music_ray.errors import InputError
from music_ray.rundir import open_filesystem
from music_ray.storage import below, is_of_store, open_input

JSON_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SUFFIXES = (".parquet", *JSON_SUFFIXES)
DAMAGE = (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException)
"""What reading a truncated, damaged, unreadable or vanished file raises."""
REFUSALS = "gates.jsonl"
"""Lies beside the pairs in a run's pairs/, and holds none."""
_BATCH_ROWS = 256
_READ_BYTES = 2**20
"""On an object store every read is a request."""


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


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows."""

    filesystem: pafs.FileSystem
    path: str
    """As the filesystem knows it."""
    name: str
    """As the user would name it."""

    @property
    def is_parquet(self) -> bool:
        """Whether its name says so; it is JSON lines otherwise."""
        return self.path.endswith(".parquet")

    def is_empty(self) -> bool:
        """Whether it has no bytes."""
        return self.filesystem.get_file_info(self.path).size == 0


def find_files(location: str, remedy: str) -> list[DataFile]:
    """The data files at a location: the one that it names, or all below a folder in the order of names.

    Names that begin with a dot or an underscore are not data, nor are a run's own refusals.

    Args:
        location: a local path or a URI.
        remedy: what to do where there is nothing, for the message: 'check the path in data.sources'.

    Raises:
        InputError: there is none, or it can't be reached.
    """
    filesystem, path = open_filesystem(location)
    info = _file_info(filesystem, path, location)
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"no file or folder at {location}: {remedy}")
    if info.type == pafs.FileType.File:
        if not path.endswith(SUFFIXES):
            raise InputError(
                f"{location} has none of the suffixes {', '.join(SUFFIXES)}: convert or rename it"
            )
        return [DataFile(filesystem, path, location)]
    infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    inside = sorted(
        entry.path[len(path) :].strip("/")
        for entry in infos
        if entry.type == pafs.FileType.File and entry.path.endswith(SUFFIXES)
    )
    files = [
        name
        for name in inside
        if not any(part.startswith((".", "_")) or part == REFUSALS for part in name.split("/"))
    ]
    if not files:
        raise InputError(f"the folder {location} holds no {', '.join(SUFFIXES)} file: name another one")
    return [DataFile(filesystem, f"{path.rstrip('/')}/{name}", below(location, name)) for name in files]


def _file_info(filesystem: pafs.FileSystem, path: str, location: str) -> pafs.FileInfo:
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(f"cannot reach {location}: {error}") from None


@contextmanager
def naming_damage(name: str, remedy: str = "name another file") -> Iterator[None]:
    """Around reading a file: damage becomes one message that names it.

    Args:
        name: the file, as the user would name it.
        remedy: what else than restoring it would help.

    Raises:
        InputError: the file can't be read to its end.
        OSError: an object store failed.
    """
    try:
        yield
    except DAMAGE as error:
        if is_of_store(error):
            raise
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read {name}: {cause}; restore it or {remedy}") from None


def file_rows(file: DataFile, columns: Sequence[str]) -> Iterator[RawRow]:
    """Rows of a file; of Parquet the columns alone, those of them that it has. Damage: see naming_damage."""
    return parquet_rows(file, columns) if file.is_parquet else json_file_rows(file)


def parquet_columns(file: DataFile) -> list[str]:
    """Names of a Parquet file's columns; only its end is read."""
    with open_input(file.filesystem, file.path) as handle:
        return pq.ParquetFile(handle).schema_arrow.names


def parquet_rows(file: DataFile, columns: Sequence[str]) -> Iterator[RawRow]:
    """Rows of a Parquet file: the columns alone, those of them that it has. A file of no bytes has none."""
    with open_input(file.filesystem, file.path) as handle:
        if handle.size() == 0:
            return
        parquet = pq.ParquetFile(handle)
        present = parquet.schema_arrow.names
        used = [name for name in columns if name in present]
        number = 0
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=used):
            for value in _batch_values(batch):
                number += 1
                yield _parquet_row(file.name, number, value)


def _parquet_row(place: str, number: int, value: dict[str, Any] | UnicodeDecodeError) -> RawRow:
    if isinstance(value, UnicodeDecodeError):
        text = value.object.decode("utf-8", "replace")
        return RawRow(place, number, None, "not_utf8", f"{value.reason} at byte {value.start}", text)
    return RawRow(place, number, value)


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


def json_file_rows(file: DataFile) -> Iterator[RawRow]:
    """Rows of a file of JSON lines, plain or gzipped."""
    with open_input(file.filesystem, file.path) as stream:
        lines = io.BufferedReader(cast(io.RawIOBase, stream), _READ_BYTES)
        if not file.path.endswith(".gz"):
            yield from json_lines(file.name, lines)
            return
        with closing(gzip.GzipFile(fileobj=lines)) as unzipped:
            yield from json_lines(file.name, cast(BinaryIO, unzipped))


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
        return refused("wrong_type", f"a JSON {type(value).__name__}, expected an object")
    return RawRow(place, number, value)
