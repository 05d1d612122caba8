"""Rows of two runs' numbers: what is of the same things meets in one row, and every number has its row.

Knows labels and keys, not what the numbers are of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from music_ray.report.parts import Row
from music_ray.report.show import NOTHING


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of one run."""

    key: tuple[object, ...]
    """Equal in two runs where the numbers may stand side by side."""
    of: str
    """A digest of what it was measured on; numbers of two digests never meet. Empty where it is not known."""
    label: str
    cell: str
    folder: str
    """Name of its evaluation, which tells entries of one label apart."""
    model: str
    """What that evaluation calls the model, which tells those of one folder apart."""


Met = tuple[Entry | None, Entry | None]


def rows_of(first: Sequence[Entry], second: Sequence[Entry]) -> list[Row]:
    """A row for every number of either run, in the order of the first; no number is left out."""
    there = met(first, second)
    return [
        (label, _cell(one), _cell(other)) for label, (one, other) in zip(_labels(there), there, strict=True)
    ]


def _cell(entry: Entry | None) -> str:
    return NOTHING if entry is None else entry.cell


def met(first: Sequence[Entry], second: Sequence[Entry]) -> list[Met]:
    """Entries that share a row, and those that stand alone."""
    groups: dict[tuple[object, ...], tuple[list[Entry], list[Entry]]] = defaultdict(lambda: ([], []))
    for side, column in enumerate((first, second)):
        for entry in column:
            groups[entry.key][side].append(entry)
    return [pair for ours, theirs in groups.values() for pair in _met_of_one_key(ours, theirs)]


def _met_of_one_key(first: list[Entry], second: list[Entry]) -> list[Met]:
    """Each with at most one of the other run: what is surely of the same things first, then of one folder."""

    def nearness(places: tuple[int, int]) -> tuple[bool, bool]:
        one, other = first[places[0]], second[places[1]]
        return one.of != other.of, one.folder != other.folder

    partner: dict[int, int] = {}
    for one, other in sorted(product(range(len(first)), range(len(second))), key=nearness):
        may_meet = first[one].of == second[other].of or not (first[one].of and second[other].of)
        if may_meet and one not in partner and other not in partner.values():
            partner[one] = other
    taken = {*partner.values()}
    return [
        *((entry, second[partner[at]] if at in partner else None) for at, entry in enumerate(first)),
        *((None, entry) for at, entry in enumerate(second) if at not in taken),
    ]


def _labels(there: Sequence[Met]) -> list[str]:
    """Labels that say as much as tells them apart: the evaluation, then the model, where one would repeat."""
    plain = [next(one.label for one in pair if one) for pair in there]
    folders = [_said(one.folder for one in pair if one) for pair in there]
    models = [f"{folders[at]}, {_said(one.model for one in pair if one)}" for at, pair in enumerate(there)]
    labels = plain
    for details in (folders, models):
        telling = _telling(labels, details)
        labels = [
            f"{short} (in {detail})" if label in telling else label
            for short, label, detail in zip(plain, labels, details, strict=True)
        ]
    return labels


def _telling(labels: Sequence[str], details: Sequence[str]) -> set[str]:
    """Labels that repeat and that their details would tell apart."""
    seen: dict[str, set[str]] = defaultdict(set)
    for label, detail in zip(labels, details, strict=True):
        seen[label].add(detail)
    return {label for label, found in seen.items() if len(found) > 1}


def _said(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))
