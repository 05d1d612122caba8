"""Numbers and intervals of a JSON document, any of which may be missing.

Knows how documents name an interval (NAME, NAME_low, NAME_high), not what the numbers mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Span:
    """An estimate with its interval; not a number where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there is an estimate."""
        return math.isfinite(self.value)

    def where(self, has_interval: bool) -> Span:
        """The estimate, with its interval only where one is to be shown."""
        return self if has_interval else Span(self.value)


def number(value: Any) -> float:
    """A JSON value as a number; not a number where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def span(document: dict[str, Any], name: str) -> Span:
    """The estimate of this name with its interval."""
    return Span(*(number(document.get(key)) for key in (name, f"{name}_low", f"{name}_high")))


def whole(value: Any) -> int:
    """A count; 0 where there is none."""
    return int(value) if math.isfinite(number(value)) else 0


def counts(document: Any) -> list[tuple[str, int]]:
    """A table of counts by reason."""
    return [(str(name), whole(value)) for name, value in dict(document or {}).items()]


def letter(index: int) -> str:
    """What a model is called on the page and in the terminal: A, B, … in the order of the command."""
    return chr(ord("A") + index)
