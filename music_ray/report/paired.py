"""Two models on the same held-out pairs: how far their accuracies lie apart, and if that could be chance.

The evaluate stage writes it into evals/pairwise.json. Of runs that were evaluated before it did, the p-value
is computed from their scores; the interval is not, and is said to be missing. Knows pairs and contexts, not
suites.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from music_ray.paired_tests import FEWEST_CONTEXTS, sign_flip_test
from music_ray.report.numbers import Span, number, span, whole
from music_ray.report.show import known_signed
from music_ray.rundir import RunDir

_SIGNIFICANT = 0.05
_LEAST_P = 1e-4
Right = dict[str, bool]
"""By pair: whether a model scores its chosen side higher."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The first model's accuracy less the second's, over the same pairs."""

    difference: Span
    """Its interval resamples contexts; not a number where it was not computed."""
    p_value: float
    """By exchanges of whole contexts."""
    num_contexts: int
    """0 where it is not known."""

    @property
    def is_settled(self) -> bool:
        """Whether the difference has a sign: p below 0.05, and 0 outside the interval where there is one.

        On a handful of contexts bootstrap intervals are too narrow (all right gives an interval of no
        width), and the exact test keeps them from settling anything.
        """
        return self.p_value < _SIGNIFICANT and not self.holds_zero

    @property
    def holds_zero(self) -> bool:
        """Whether no difference lies in the interval; false where there is none."""
        return self.difference.low <= 0 <= self.difference.high

    @property
    def text(self) -> str:
        """The difference in points, its interval and its p-value."""
        found = self.difference
        points = [known_signed(100 * one, 1) for one in (found.value, found.low, found.high)]
        interval = f"{points[1]} to {points[2]}"
        if not math.isfinite(found.low):
            interval = "no interval recorded"
        elif 0 < self.num_contexts < FEWEST_CONTEXTS:
            interval = "too few contexts for an interval"
        return f"{points[0]} points ({interval}), {chance(self.p_value)} by exchanges of whole contexts"


def chance(p_value: float) -> str:
    """A p-value; what four decimals would show as 0 is said to be smaller."""
    return f"p < {_LEAST_P:.4f}" if p_value < _LEAST_P else f"p = {p_value:.4f}"


def written(comparisons: Any, first: str, second: str) -> Paired | None:
    """What the stage wrote of two models; None where it did not."""
    for one in comparisons or ():
        if (one.get("first"), one.get("second")) == (first, second):
            overall = one.get("overall") or {}
            p_value = number(overall.get("p_value"))
            if math.isfinite(p_value):
                return Paired(span(overall, "difference"), p_value, whole(overall.get("num_contexts")))
    return None


def tested(first: Right, second: Right, contexts: dict[str, int]) -> Paired | None:
    """The test on the pairs that both models scored and whose contexts are known; None without any."""
    ids = [one for one in first if one in second and one in contexts]
    if not ids:
        return None
    differences = np.array([int(first[one]) - int(second[one]) for one in ids])
    groups = np.array([contexts[one] for one in ids])
    p_value = sign_flip_test(differences, groups)
    return Paired(Span(float(differences.mean())), p_value, len(np.unique(groups)))


def contexts_of(run: RunDir, suite: str) -> dict[str, int]:
    """Which held-out pairs begin with the same user message; empty where the pairs are gone."""
    if not run.exists("mix", "held_out", f"{suite}.parquet"):
        return {}
    with run.open_parquet(run.path("mix", "held_out", f"{suite}.parquet")) as file:
        table = file.read(columns=["id", "conversation"])
    ids, contexts = (table[name].to_pylist() for name in ("id", "conversation"))
    return {str(id_): int(context) for id_, context in zip(ids, contexts, strict=True)}
