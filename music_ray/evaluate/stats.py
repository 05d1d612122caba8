"""Intervals that take whole conversations as the unit.

Pairs of one conversation are not independent: resampling pairs would make intervals too narrow. This module
knows numbers and groups, not models or files; tests of two models are in music_ray.paired_tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
