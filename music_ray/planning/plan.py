"""What a plan is: quantities with bounds and where they come from, and sentences for the reader."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

PLAN_VERSION = 1

Bounds = tuple[float, float, float]
"""Lower bound, expectation, upper bound."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of the plan."""

    low: float
    expected: float
    high: float
    unit: str
    """tokens, calls, GPU hours, …; a currency for costs."""
    basis: str
    """Where it comes from: a measurement, a configuration key, or a guess."""
    there: float | None = None
    """How much of it the run folder holds or has used already."""

    @classmethod
    def of(cls, bounds: Bounds, unit: str, basis: str, there: float | None = None) -> Quantity:
        """A number with bounds."""
        return cls(*bounds, unit, basis, there)

    @classmethod
    def exactly(cls, value: float, unit: str, basis: str, there: float | None = None) -> Quantity:
        """A number without bounds."""
        return cls(value, value, value, unit, basis, there)

    @property
    def bounds(self) -> Bounds:
        """The three numbers."""
        return self.low, self.expected, self.high


@dataclass
class Plan:
    """A run's plan. Quantities are named STAGE.what, such as generate.completion_tokens."""

    name: str
    num_seeds: int
    seeds_are_known: bool
    """False: nobody knows yet how many seeds there will be, and the plan is for `num_seeds` of them."""
    rows_there: int
    """Rollouts that were in the run folder when it was made."""
    currency: str
    quantities: dict[str, Quantity] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What is not known and how to know it, and what the reader should look at."""
    warnings: list[str] = field(default_factory=list)
    """Caps that the plan exceeds."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"plan_version": PLAN_VERSION, **asdict(self)}


def add(*many: Bounds) -> Bounds:
    """The sum; bounds add up."""
    return sum(one[0] for one in many), sum(one[1] for one in many), sum(one[2] for one in many)


def scale(bounds: Bounds, factor: float) -> Bounds:
    """All three times a factor."""
    return bounds[0] * factor, bounds[1] * factor, bounds[2] * factor
