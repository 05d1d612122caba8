"""The texts of named evaluation sets, as word n-grams that pairs are compared with.

Knows columns and what they may hold; what an overlap means is the business of eval_overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from music_ray.config import EvalSetConfig, GatesConfig
from music_ray.data_files import RawRow, file_rows, find_files, naming_damage, parquet_columns
from music_ray.errors import InputError
from music_ray.generate.gates.base import runs, words
from music_ray.generate.shapes import name_columns

SHORTEST = 6
"""Words of a text below the n-gram's length that is still compared, as a whole; shorter ones say nothing."""
_KEY = "pairs.gates.eval_sets"


@dataclass(frozen=True, slots=True)
class EvalSet:
    """What is known of one evaluation set."""

    name: str
    ngrams: set[int] = field(default_factory=set)
    """Hashes of all runs of n words."""
    whole: set[int] = field(default_factory=set)
    """Hashes of the texts that are shorter than n words."""

    def add(self, text: str, ngram: int) -> None:
        """Takes in one text."""
        listed = words(text)
        if len(listed) >= ngram:
            self.ngrams.update(map(hash, runs(listed, ngram)))
        elif len(listed) >= SHORTEST:
            self.whole.add(hash(tuple(listed)))


def read_eval_sets(gates: GatesConfig) -> list[EvalSet]:
    """All evaluation sets that the configuration names.

    Raises:
        InputError: a file, dataset or column is missing, or one can't be read, or holds no text.
    """
    return [_read_eval_set(entry, gates.eval_ngram) for entry in gates.eval_sets]


def _read_eval_set(entry: EvalSetConfig, ngram: int) -> EvalSet:
    found = EvalSet(entry.title)
    for row in _rows(entry):
        if row.value is None:
            raise InputError(
                f"{row.place} row {row.number} is unreadable ({row.detail}): mend it or remove it from {_KEY}"
            )
        for column in entry.columns:
            for text in _texts(row, column):
                found.add(text, ngram)
    if not (found.ngrams or found.whole):
        raise InputError(
            f"the evaluation set {entry.title} holds no text of {SHORTEST} words or more in "
            f"{name_columns(entry.columns)}: name other columns in {_KEY}"
        )
    return found


def _rows(entry: EvalSetConfig) -> Iterator[RawRow]:
    if entry.hub is not None:
        from music_ray.generate.hub import hub_rows

        yield from _checked(entry.hub, entry.columns, hub_rows(entry.hub, entry.revision, entry.split, _KEY))
        return
    for file in find_files(str(entry.path), f"check the path in {_KEY}"):
        with naming_damage(file.name, f"remove it from {_KEY}"):
            rows = file_rows(file, entry.columns)
            if file.is_parquet:
                _check_columns(file.name, entry.columns, parquet_columns(file))
                yield from rows
            else:
                yield from _checked(file.name, entry.columns, rows)


def _checked(place: str, columns: list[str], rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """Passes rows on, and refuses a place in which no row has one of the columns."""
    present: set[str] = set()
    for row in rows:
        present.update(row.value or ())
        yield row
    _check_columns(place, columns, present)


def _check_columns(place: str, columns: list[str], present: Iterable[str]) -> None:
    there = set(present)
    for column in columns:
        if column not in there:
            raise InputError(
                f"{place} has no column `{column}`, it has {name_columns(there)}: correct {_KEY}"
            )


def _texts(row: RawRow, column: str) -> Iterator[str]:
    """The texts of one cell: a string, or a list of strings or of messages; nothing where it is empty."""
    value = (row.value or {}).get(column)
    for one in value if isinstance(value, list) else [value]:
        text = one.get("content", one.get("value")) if isinstance(one, Mapping) else one
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"{row.place} row {row.number}: `{column}` holds {_kind(one)}, expected text, or a "
                f"list of texts or of {{role, content}} messages: name another column in {_KEY}"
            )
        if text:
            yield text


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"
