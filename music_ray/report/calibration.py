"""Whether margins mean what they say: the side that a model prefers should be better in sigmoid(|margin|).

That is what Bradley–Terry training fits. A pair's chosen side is always the better one, so pairs are sorted
by how sure the model is, whichever side it prefers, and beside it stands how often that side is the chosen
one. Knows margins, not models or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

NUM_BINS = 10
"""Of equal width, from a coin (0.5) to certainty (1)."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of which the model is about equally sure."""

    low: float
    high: float
    num_pairs: int
    confidence: float
    """Mean of sigmoid(|margin|); not a number without pairs."""
    accuracy: float
    """Share of the pairs whose preferred side is the chosen one; not a number without pairs."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One model on one set of pairs."""

    model: str
    num_pairs: int
    """Those with a preference."""
    num_ties: int
    """Equal scores prefer no side, and are left out."""
    confidence: float
    accuracy: float
    error: float
    """Expected calibration error: the bins' mean distance of confidence and accuracy, by their pairs."""
    bins: list[Bin]
    """Those that hold pairs."""


def calibration(model: str, margins: Iterable[float]) -> Calibration | None:
    """The calibration of margins (chosen minus rejected); None without a preference.

    Args:
        margins: what is not finite is left out.
    """
    known = [margin for margin in margins if math.isfinite(margin)]
    sure = [(confidence(margin), margin > 0) for margin in known if margin != 0]
    if not sure:
        return None
    held: list[list[tuple[float, bool]]] = [[] for _ in range(NUM_BINS)]
    for one in sure:
        held[min(NUM_BINS - 1, int((one[0] - 0.5) * 2 * NUM_BINS))].append(one)
    bins = [_bin(number, pairs) for number, pairs in enumerate(held) if pairs]
    return Calibration(
        model=model,
        num_pairs=len(sure),
        num_ties=len(known) - len(sure),
        confidence=_mean([one for one, _ in sure]),
        accuracy=_mean([float(right) for _, right in sure]),
        error=sum(one.num_pairs * abs(one.accuracy - one.confidence) for one in bins) / len(sure),
        bins=bins,
    )


def confidence(margin: float) -> float:
    """sigmoid(|margin|): how sure the model is of the side that it prefers."""
    return 1 / (1 + math.exp(-abs(margin)))


def _bin(number: int, pairs: list[tuple[float, bool]]) -> Bin:
    width = 0.5 / NUM_BINS
    return Bin(
        low=0.5 + number * width,
        high=0.5 + (number + 1) * width,
        num_pairs=len(pairs),
        confidence=_mean([one for one, _ in pairs]),
        accuracy=_mean([float(right) for _, right in pairs]),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
