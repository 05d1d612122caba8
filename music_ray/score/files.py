"""The files that conversations are read from: where in them they stand, and their rows numbered through.

Formats and damage are the business of music_ray/data_files.py, what a conversation is that of conversations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from music_ray import storage
from music_ray.data_files import (
    DataFile,
    RawRow,
    file_rows,
    find_files,
    json_file_rows,
    naming_damage,
    parquet_columns,
)
from music_ray.errors import InputError
from music_ray.rundir import digest
from music_ray.score.conversations import InputRow

EXPECTED = "`messages`, or `chosen` and `rejected`, each a list of {role, content} that ends on the assistant"
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class InputFile:
    """One file of the input."""

    file: DataFile
    columns: tuple[str, ...]
    """Where its conversations stand."""


@dataclass(frozen=True)
class ScoringInput:
    """The data set that is scored."""

    files: list[InputFile]

    def digest(self) -> str:
        """16 hexadecimal digits of the files' contents, in their order; reads all of them."""
        return digest([_sha256(one.file) for one in self.files])

    def rows(self) -> Iterator[InputRow]:
        """All rows of all files, numbered through.

        Raises:
            InputError: a file is damaged.
        """
        number = 0
        for one in self.files:
            with naming_damage(one.file.name):
                for row in file_rows(one.file, ("id", *one.columns)):
                    yield InputRow(number, row.value, one.columns, row.reason, _detail(one.file, row))
                    number += 1


def _sha256(file: DataFile) -> str:
    found = hashlib.sha256()
    with storage.open_input(file.filesystem, file.path) as handle:
        while block := handle.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def _detail(file: DataFile, row: RawRow) -> str:
    """With the line, which blank ones make another number than the row's."""
    return row.detail if file.is_parquet or not row.reason else f"line {row.number}: {row.detail}"


def open_input(location: str) -> ScoringInput:
    """Finds the files at a place, and where in them the conversations stand.

    Args:
        location: a Parquet or JSON-lines file, or a folder of them: a local path or a URI.

    Raises:
        InputError: nothing is there, a file is empty or damaged, or has none of the expected columns.
    """
    found = find_files(location, "name the conversations that are to be scored")
    return ScoringInput([_input_file(file) for file in found])


def _input_file(file: DataFile) -> InputFile:
    with naming_damage(file.name):
        there = _column_names(file)
    if there is None:
        raise InputError(f"{file.name} is empty: name a file that holds conversations")
    if "messages" in there:
        return InputFile(file, ("messages",))
    if {"chosen", "rejected"} <= there:
        return InputFile(file, ("chosen", "rejected"))
    shown = ", ".join(f"`{one}`" for one in sorted(there)[:12]) or "none"
    raise InputError(
        f"{file.name} has no conversations: its columns are {shown}, but expected are {EXPECTED}"
    )


def _column_names(file: DataFile) -> set[str] | None:
    """Columns of a Parquet file, or keys of the first JSON line that is an object; None of an empty file."""
    if file.is_empty():
        return None
    if file.is_parquet:
        return set(parquet_columns(file))
    lines = 0
    for row in json_file_rows(file):
        lines += 1
        if row.value is not None:
            return set(row.value)
    return set() if lines else None
