"""Tests of two models on the same pairs, for the evaluations and for the report of two runs.

Pairs of one conversation are not independent: a test that counts pairs is too sure. This module knows numbers
and groups, not models or files.
"""

from __future__ import annotations

import numpy as np

FEWEST_CONTEXTS = 10
"""Below so many groups no interval is shown: to resample fewer says less than it seems to."""
_LARGEST_BIAS = 20.0
"""Of a sign, half its log odds: with this one, a double knows no other sign than plus."""


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
