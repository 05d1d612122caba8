"""Two models on the same pairs: how far their accuracies lie apart, and whether that could be chance.

The headline is the sign-flip test over contexts. Pairs that begin with the same user message rise and fall
together, so the context is what the two models can be said to have been tried on independently; and the test
is exact, needs no model of the margins, and is McNemar's exact test where every context has one pair.
McNemar's own p-value stands beside it, since readers know it; it counts pairs, and is too sure of itself
where contexts hold several. The interval resamples contexts, both models' results together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from music_ray.evaluate.accuracy import CUTS, PairFacts, is_right, parts
from music_ray.evaluate.stats import Resampling, bootstrap_mean
from music_ray.paired_tests import mcnemar_test, sign_flip_test


def compare(
    first: np.ndarray, second: np.ndarray, contexts: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    """The first model's accuracy minus the second's, with its interval and p-values.

    Args:
        first, second: scores of the same pairs, [n, 2], chosen and rejected.
        contexts: of each pair, [n].

    Raises:
        ValueError: no pairs, or not the same number of them.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} pairs of the first model, {len(second)} of the second")
    one, other = is_right(first), is_right(second)
    differences = one.astype(int) - other.astype(int)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    found = bootstrap_mean(differences.astype(float), contexts, resampling)
    return {
        "num_pairs": len(first),
        "num_contexts": len(np.unique(contexts)),
        "difference": found.value,
        "difference_low": found.low,
        "difference_high": found.high,
        "p_value": sign_flip_test(differences, contexts),
        "mcnemar_p_value": mcnemar_test(only_first, only_second),
        "only_first_right": only_first,
        "only_second_right": only_second,
    }


def compare_by(
    first: np.ndarray, second: np.ndarray, facts: PairFacts, resampling: Resampling
) -> dict[str, Any]:
    """compare on all pairs as `overall`, and on each part of every breakdown (accuracy.CUTS)."""
    return {
        "overall": compare(first, second, facts.contexts, resampling),
        **{
            cut: {
                name: compare(first[part], second[part], facts.contexts[part], resampling)
                for name, part in parts(facts, cut)
            }
            for cut in CUTS
        },
    }
