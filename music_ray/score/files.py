"""The files that conversations are read from: what they are, and their rows as a stream.

Whatever is wrong with one row comes out as a row with its reason; whatever is wrong with a file is an
InputError.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from music_ray.errors import InputError
from music_ray.rundir import digest, open_filesystem
from music_ray.score.conversations import RawRow

JSON_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SUFFIXES = (".parquet", *JSON_SUFFIXES)
EXPECTED = "`messages`, or `chosen` and `rejected`, each a list of {role, content} that ends on the assistant"
_BATCH_ROWS = 256
_BLOCK_BYTES = 2**20
_DAMAGE = (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException)
"""What reading a truncated, damaged, unreadable or vanished file raises."""


@dataclass(frozen=True)
class InputFile:
    """One file of the input."""

    path: str
    """As the filesystem knows it."""
    name: str
    """As the user would name it."""
    columns: tuple[str, ...]
    """Where its conversations stand."""


@dataclass(frozen=True)
class ScoringInput:
    """The data set that is scored."""

    filesystem: pafs.FileSystem
    files: list[InputFile]

    def digest(self) -> str:
        """16 hexadecimal digits of the files' contents, in their order; reads all of them."""
        return digest([self._sha256(file) for file in self.files])

    def _sha256(self, file: InputFile) -> str:
        found = hashlib.sha256()
        with self.filesystem.open_input_file(file.path) as handle:
            while block := handle.read(_BLOCK_BYTES):
                found.update(block)
        return found.hexdigest()

    def rows(self) -> Iterator[RawRow]:
        """All rows of all files, numbered through.

        Raises:
            InputError: a file is damaged.
        """
        number = 0
        for file in self.files:
            try:
                for value, reason, detail in _rows(self.filesystem, file):
                    yield RawRow(number, value, file.columns, reason, detail)
                    number += 1
            except _DAMAGE as error:
                raise _damaged(file.name, error) from None


def open_input(location: str) -> ScoringInput:
    """Finds the files at a place, and where in them the conversations stand.

    Args:
        location: a Parquet or JSON-lines file, or a folder of them: a local path or a URI.

    Raises:
        InputError: nothing is there, a file is empty or damaged, or has none of the expected columns.
    """
    filesystem, path = open_filesystem(location)
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(f"cannot reach {location}: {error}") from None
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"no file or folder at {location}: name the conversations that are to be scored")
    if info.type == pafs.FileType.File:
        if not path.endswith(SUFFIXES):
            raise InputError(
                f"{location} has none of the suffixes {', '.join(SUFFIXES)}: convert or rename it"
            )
        return ScoringInput(filesystem, [_input_file(filesystem, path, location)])
    infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    below = sorted(
        entry.path[len(path) :].strip("/")
        for entry in infos
        if entry.type == pafs.FileType.File and entry.path.endswith(SUFFIXES)
    )
    names = [name for name in below if not any(part.startswith((".", "_")) for part in name.split("/"))]
    if not names:
        raise InputError(f"the folder {location} holds no {', '.join(SUFFIXES)} file: name another one")
    files = [
        _input_file(filesystem, f"{path.rstrip('/')}/{name}", f"{location.rstrip('/')}/{name}")
        for name in names
    ]
    return ScoringInput(filesystem, files)


def _input_file(filesystem: pafs.FileSystem, path: str, name: str) -> InputFile:
    try:
        there = _column_names(filesystem, path)
    except _DAMAGE as error:
        raise _damaged(name, error) from None
    if there is None:
        raise InputError(f"{name} is empty: name a file that holds conversations")
    if "messages" in there:
        return InputFile(path, name, ("messages",))
    if {"chosen", "rejected"} <= there:
        return InputFile(path, name, ("chosen", "rejected"))
    shown = ", ".join(f"`{one}`" for one in sorted(there)[:12]) or "none"
    raise InputError(f"{name} has no conversations: its columns are {shown}, but expected are {EXPECTED}")


def _column_names(filesystem: pafs.FileSystem, path: str) -> set[str] | None:
    """Columns of a Parquet file, or keys of the first JSON line that is an object; None of an empty file."""
    if filesystem.get_file_info(path).size == 0:
        return None
    if path.endswith(".parquet"):
        with filesystem.open_input_file(path) as handle:
            return set(pq.ParquetFile(handle).schema_arrow.names)
    lines = 0
    for value, _, _ in _json_rows(filesystem, path):
        lines += 1
        if value is not None:
            return set(value)
    return set() if lines else None


def _damaged(name: str, error: Exception) -> InputError:
    cause = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"cannot read {name}: {cause}; restore it or name another file")


_Row = tuple[dict[str, Any] | None, str, str]
"""(value, reason, detail)"""


def _rows(filesystem: pafs.FileSystem, file: InputFile) -> Iterator[_Row]:
    if not file.path.endswith(".parquet"):
        yield from _json_rows(filesystem, file.path)
        return
    with filesystem.open_input_file(file.path) as handle:
        parquet = pq.ParquetFile(handle)
        used = [name for name in ("id", *file.columns) if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=used):
            for value in batch.to_pylist():
                yield value, "", ""


def _json_rows(filesystem: pafs.FileSystem, path: str) -> Iterator[_Row]:
    # compression=None: pyarrow would guess from the name, but only Python's gzip names what is damaged.
    with filesystem.open_input_stream(path, compression=None) as stream:
        lines = io.BufferedReader(cast(io.RawIOBase, stream))
        if not path.endswith(".gz"):
            yield from _json_lines(lines)
            return
        with closing(gzip.GzipFile(fileobj=lines)) as unzipped:
            yield from _json_lines(cast(BinaryIO, unzipped))


def _json_lines(stream: BinaryIO | io.BufferedReader) -> Iterator[_Row]:
    """Lines end at "\\n" alone: texts hold U+2028. Blank lines are no rows."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: bytes) -> _Row:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return None, "not_utf8", f"line {number}: {error.reason} at byte {error.start}"
    except (ValueError, RecursionError) as error:
        return None, "not_json", f"line {number}: {error}"
    if not isinstance(value, dict):
        return None, "wrong_type", f"line {number} is a JSON {type(value).__name__}, expected an object"
    return value, "", ""
