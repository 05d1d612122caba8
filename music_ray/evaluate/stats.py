"""Bootstrap intervals that resample whole conversations.

Pairs of one conversation are not independent: resampling pairs would make intervals too narrow.
This module knows numbers and groups, not models or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float


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
    if len(values) == 0:
        raise ValueError("no values to average")
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=values)  # [g]
    counts = np.bincount(index).astype(float)  # [g]
    generator = np.random.default_rng(seed)
    num_groups = len(sums)
    means = np.empty(samples)
    for start in range(0, samples, 256):  # in slices: a big suite must not need samples × groups at once
        size = min(256, samples - start)
        drawn = generator.integers(num_groups, size=(size, num_groups))
        means[start : start + size] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))
