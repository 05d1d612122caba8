"""One table of two runs side by side: labels, and how it is in each."""

from __future__ import annotations

from dataclasses import dataclass, field

from music_ray.report.show import NOTHING

Row = tuple[str, str, str]
"""What it is, and how it is in the first and in the second run."""


@dataclass(frozen=True, slots=True)
class Part:
    """A table with its title."""

    title: str
    caption: str
    rows: list[Row]
    missing: str
    """What is said where there are no rows."""
    notes: list[str] = field(default_factory=list)


def merged(one: dict[str, str], other: dict[str, str]) -> list[Row]:
    """Labels of either run, those of the first before those that only the second has."""
    return [(label, one.get(label, NOTHING), other.get(label, NOTHING)) for label in {**one, **other}]
