"""What a replication says of the hypotheses: accuracies, differences between arms, and their intervals.

Knows numbers, not models or files. The hypotheses are those of docs/explanation/miniature.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from music_ray.evaluate.stats import Interval
from music_ray.replicate.scale import ARMS

Right = Mapping[str, Mapping[str, np.ndarray]]
"""right[arm][suite]: [s, n] bool, whether training seed s gets pair n right."""
READY = 0.90
"""Accuracy on final turns, of the development split, that A0 must reach."""
CHECKS = 0.80
"""The same on the language model's own errors. Where final turns are not checked so well, earlier ones can't
be, and the aim of 0.80 is out of reach whatever a reward model looks at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One hypothesis and what was found."""

    name: str
    statement: str
    estimates: dict[str, Interval]
    """What the statement is about."""
    holds: bool
    refuted: bool
    """The whole interval lies on the other side. Neither: the run does not decide."""
    by_seed: dict[str, list[float]] = field(default_factory=dict)
    """The estimates of each training seed by itself, where they are accuracies or their differences."""


def over_seeds(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The mean of one number a training seed, with Student's interval: contexts count as fixed.

    With five seeds the bootstrap of two_way_bootstrap is too narrow where models differ much from seed to
    seed: it takes their variance for 4/5 of what it is, and knows no t distribution.

    Raises:
        ValueError: fewer than two seeds.
    """
    from scipy.stats import t

    if len(values) < 2:
        raise ValueError(f"an interval over training seeds needs two of them, not {len(values)}")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def two_way_bootstrap(
    values: np.ndarray, clusters: np.ndarray, *, samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of values, with a percentile interval over training seeds × clusters of pairs.

    Args:
        values: one number a training seed and pair, [s, n].
        clusters: the cluster of each pair, [n], integers from 0.
        samples: resamples; each draws as many seeds and as many clusters as there are, with replacement.

    Raises:
        ValueError: no values.
    """
    if values.size == 0:
        raise ValueError("no values to average")
    sizes = np.bincount(clusters).astype(float)  # [c]
    sums = np.stack([np.bincount(clusters, weights=row, minlength=len(sizes)) for row in values])  # [s, c]
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    for start in range(0, samples, 200):  # in slices: samples × clusters need not fit at once
        size = min(200, samples - start)
        of_clusters = _times_drawn(generator, len(sizes), size)  # [b, c]
        of_seeds = _times_drawn(generator, len(values), size)  # [b, s]
        totals = np.einsum("bs,sc,bc->b", of_seeds, sums, of_clusters, optimize=True)
        means[start : start + size] = totals / (len(values) * (of_clusters @ sizes))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def _times_drawn(generator: np.random.Generator, number: int, size: int) -> np.ndarray:
    """How often each of `number` things comes in as many draws with replacement, [size, number]."""
    return generator.multinomial(number, np.full(number, 1 / number), size=size)


def accuracies(right: Right, clusters: Mapping[str, np.ndarray]) -> dict[str, dict[str, Interval]]:
    """By suite and arm."""
    between = _Between(right, clusters)
    suites = next(iter(right.values()))
    return {suite: {arm: between.accuracy(arm, suite) for arm in right} for suite in suites}


COMPARED = (("A1", "A0"), ("A1", "A2"), ("A2", "A0"), ("A3", "A0"), ("A4", "A0"), ("A1", "A5"), ("A6", "A1"))
"""Arms whose difference is reported on every suite, whatever it is; and every ablation against A0 and A1."""


def differences(
    right: Right, clusters: Mapping[str, np.ndarray]
) -> dict[str, dict[tuple[str, str], Interval]]:
    """By suite, of the arms that there are; see COMPARED."""
    between = _Between(right, clusters)
    suites = next(iter(right.values()))
    return {suite: {arms: between.difference(*arms, suite) for arms in _there(right)} for suite in suites}


def differences_by_seed(right: Right) -> dict[str, dict[tuple[str, str], list[float]]]:
    """The same differences of each training seed by itself."""
    suites = next(iter(right.values()))
    return {
        suite: {
            (one, other): _minus(right, one, other, suite).mean(axis=1).tolist()
            for one, other in _there(right)
        }
        for suite in suites
    }


def _there(right: Right) -> list[tuple[str, str]]:
    """The pairs of arms to compare, of those that there are."""
    there = [(one, other) for one, other in COMPARED if one in right and other in right]
    return there + [
        (arm, other) for arm in right if arm not in ARMS for other in ("A0", "A1") if other in right
    ]


def _minus(right: Right, one: str, other: str, suite: str) -> np.ndarray:
    """How much more often one arm is right than the other, by training seed and pair, [s, n]."""
    return right[one][suite].astype(float) - right[other][suite].astype(float)


def findings(right: Right, clusters: Mapping[str, np.ndarray]) -> list[Finding]:
    """The hypotheses that the arms and suites at hand can speak of."""
    suites = set(next(iter(right.values())))
    between = _Between(right, clusters)
    wanted: list[tuple[set[str], str, Callable[[], Finding]]] = [
        ({"A0"}, "dev_S7", between.ready),
        ({"A0"}, "dev_natural", between.checks_natural_errors),
        ({"A0", "A1"}, "S2", lambda: between.above_zero("H1", "A1", "A0")),
        ({"A1", "A2"}, "S2", lambda: between.above_zero("H2", "A1", "A2")),
        ({"A0", "A1"}, "S2", between.aim),
        ({"A0", "A3", "A4"}, "S2", between.placebos),
        ({"A0", "A1"}, "S7", between.not_inferior),
    ]
    return [make() for arms, suite, make in wanted if arms <= set(right) and suite in suites]


@dataclass(frozen=True)
class _Between:
    right: Right
    clusters: Mapping[str, np.ndarray]

    def accuracy(self, arm: str, suite: str) -> Interval:
        return two_way_bootstrap(self.right[arm][suite].astype(float), self.clusters[suite])

    def difference(self, one: str, other: str, suite: str) -> Interval:
        """How much more often one arm is right than the other, on the same pairs and training seeds."""
        return two_way_bootstrap(_minus(self.right, one, other, suite), self.clusters[suite])

    def ready(self) -> Finding:
        return self._reaches("ready", f"A0 is right in {READY:.2f} of the final turns", "dev_S7", READY)

    def checks_natural_errors(self) -> Finding:
        statement = f"A0 finds {CHECKS:.2f} of the natural errors in final turns"
        return self._reaches("checks", statement, "dev_natural", CHECKS)

    def _reaches(self, name: str, statement: str, suite: str, bound: float) -> Finding:
        found = self.accuracy("A0", suite)
        by_seed = {"A0": self.right["A0"][suite].mean(axis=1).tolist()}
        return Finding(
            name, f"{statement} (development split)", {"A0": found}, found.value >= bound, found.high < bound,
            by_seed,
        )  # fmt: skip

    def above_zero(self, name: str, one: str, other: str) -> Finding:
        found, by_seed = self._compared([(one, other)], "S2")
        (interval,) = found.values()
        statement = f"{one} − {other} on S2 is above 0"
        return Finding(name, statement, found, interval.low > 0, interval.high < 0, by_seed)

    def aim(self) -> Finding:
        one, other = self.accuracy("A1", "S2"), self.accuracy("A0", "S2")
        holds = one.value >= 0.80 and 0.45 <= other.value <= 0.55
        refuted = one.high < 0.80 or other.high < 0.45 or other.low > 0.55
        by_seed = {arm: self.right[arm]["S2"].mean(axis=1).tolist() for arm in ("A1", "A0")}
        statement = "A1 ≥ 0.80 on S2, where A0 is 0.45 to 0.55"
        return Finding("aim", statement, {"A1": one, "A0": other}, holds, refuted, by_seed)

    def placebos(self) -> Finding:
        found, by_seed = self._compared([("A3", "A0"), ("A4", "A0")], "S2")
        holds = all(one.low > -0.02 and one.high < 0.02 for one in found.values())
        refuted = any(one.high < -0.02 or one.low > 0.02 for one in found.values())
        return Finding("H3", "A3 and A4 on S2 are within 2 points of A0", found, holds, refuted, by_seed)

    def not_inferior(self) -> Finding:
        found, by_seed = self._compared([("A1", "A0")], "S7")
        (interval,) = found.values()
        statement = "A1 − A0 on S7 is above −1 point"
        return Finding("H4", statement, found, interval.low > -0.01, interval.high < -0.01, by_seed)

    def _compared(
        self, arms: Sequence[tuple[str, str]], suite: str
    ) -> tuple[dict[str, Interval], dict[str, list[float]]]:
        """The differences of pairs of arms, over all training seeds and seed by seed."""
        found = {f"{one} − {other}": self.difference(one, other, suite) for one, other in arms}
        by_seed = {
            f"{one} − {other}": _minus(self.right, one, other, suite).mean(axis=1).tolist()
            for one, other in arms
        }
        return found, by_seed


def by_part(right: Right, suite: str, parts: np.ndarray) -> dict[str, dict[str, float]]:
    """Accuracy of each arm by a property of the pairs, e.g. the error's kind or turn."""
    return {
        str(part): {arm: float(found[suite][:, parts == part].mean()) for arm, found in right.items()}
        for part in np.unique(parts)
    }


def as_json(interval: Interval) -> dict[str, Any]:
    """An interval as results.json holds it."""
    return {"value": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}
