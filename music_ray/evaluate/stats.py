"""Intervals and tests that take whole conversations as the unit.

Pairs of one conversation are not independent: resampling pairs would make intervals too narrow, and a test
that counts pairs too sure. This module knows numbers and groups, not models or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LARGEST_BIAS = 20.0
"""Of a sign, half its log odds: with this one, a double knows no other sign than plus."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made."""

    samples: int = 2000
    """Resamples behind each interval."""
    confidence: float = 0.95
    """Coverage."""
    seed: int = 0


def clustered_bootstrap(
    values: np.ndarray, groups: np.ndarray, *, samples: int, confidence: float, seed: int
) -> Interval:
    """The mean of values with a percentile interval over resampled groups.

    Args:
        values: one number a pair, [n].
        groups: the conversation of each pair, [n], any integers.
        samples: resamples.
        confidence: coverage, e.g. 0.95.
        seed: of the resampling.

    Raises:
        ValueError: no values.
    """
    means = _resampled_means(values, groups, samples, np.random.default_rng(seed))
    return _interval(float(values.mean()), means, confidence)


def bootstrap_mean(values: np.ndarray, groups: np.ndarray, resampling: Resampling) -> Interval:
    """clustered_bootstrap with its settings in one value."""
    return clustered_bootstrap(
        values, groups, samples=resampling.samples, confidence=resampling.confidence, seed=resampling.seed
    )


def stratified_bootstrap(
    strata: Sequence[tuple[np.ndarray, np.ndarray, float]], resampling: Resampling
) -> Interval:
    """The weighted mean of the means of strata; groups are resampled inside each stratum.

    Args:
        strata: values and groups, [n] as for clustered_bootstrap, and the weight of their mean.

    Raises:
        ValueError: a stratum has no values.
    """
    generator = np.random.default_rng(resampling.seed)
    total = sum(weight for _, _, weight in strata)
    value, means = 0.0, np.zeros(resampling.samples)
    for values, groups, weight in strata:
        means += _resampled_means(values, groups, resampling.samples, generator) * (weight / total)
        value += float(values.mean()) * (weight / total)
    return _interval(value, means, resampling.confidence)


def _resampled_means(
    values: np.ndarray, groups: np.ndarray, samples: int, generator: np.random.Generator
) -> np.ndarray:
    if len(values) == 0:
        raise ValueError("no values to average")
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=values)  # [g]
    counts = np.bincount(index).astype(float)  # [g]
    num_groups = len(sums)
    means = np.empty(samples)
    for start in range(0, samples, 256):  # in slices: a big suite must not need samples × groups at once
        size = min(256, samples - start)
        drawn = generator.integers(num_groups, size=(size, num_groups))
        means[start : start + size] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _interval(value: float, means: np.ndarray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def sign_flip_test(differences: np.ndarray, groups: np.ndarray) -> float:
    """Two-sided p-value of a sum of differences, if each group's sum could as well have the other sign.

    Exact: the distribution over all flips is computed, none are drawn; its far tails as well, down to the
    smallest numbers that there are. Where every group holds one pair it is McNemar's exact test.

    Args:
        differences: integers, one a pair, [n]: 1 where only the first model is right, −1 where only the
            second is, 0 where both are or neither.
        groups: the conversation of each pair, [n], any integers.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums = np.rint(np.bincount(index, weights=differences)).astype(int)  # [g]
    total = abs(int(sums.sum()))
    if total == 0:
        return 1.0
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    return min(2 * _chance_of(total, sizes, counts), 1.0)


def _chance_of(total: int, sizes: np.ndarray, counts: np.ndarray) -> float:
    """The probability of a sum of at least `total`, over equally likely signs.

    Convolving by FFT costs 1e-16 of the largest probability, behind which a far tail disappears; without FFT,
    minutes for 100,000 groups. So signs are drawn with a bias that puts the middle of the distribution at
    `total`, and each sum is weighted with what the bias has made of its probability.

    Args:
        total: above 0, and at most the sum of all.
        sizes: absolute sums of the groups, each once, above 0.
        counts: how many groups have it.
    """
    from scipy.optimize import brentq
    from scipy.signal import convolve
    from scipy.stats import binom

    span = int((sizes * counts).sum())
    bias = brentq(lambda one: (sizes * counts * np.tanh(one * sizes)).sum() - total, 0.0, _LARGEST_BIAS)
    distribution = np.ones(1)  # of the sum, from −span to span
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 1 / (1 + np.exp(-2 * bias * size)))
        distribution = convolve(distribution, steps)
    beyond = np.arange(span - total + 1)  # of the sums that are as large, how far they lie above `total`
    tail = (distribution[span + total :] * np.exp(-bias * beyond)).sum()
    scale = (counts * (np.log1p(np.exp(-2 * bias * sizes)) - np.log(2))).sum() + bias * (span - total)
    return float(max(tail, 0.0) * np.exp(scale))


def mcnemar_test(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p-value; it takes every pair as independent of the others.

    Args:
        only_first: pairs that only the first model gets right.
        only_second: pairs that only the second model gets right.
    """
    from scipy.stats import binomtest

    changed = only_first + only_second
    return float(binomtest(only_first, changed, 0.5).pvalue) if changed else 1.0
