"""Pairwise accuracy: how often the chosen side of a pair scores higher, overall and by what pairs are like.

A tie counts as wrong, and so does a pair of which a side has no score (it is not a number): both are stated.
Beside every accuracy stands how far the scores follow length. The module knows arrays, not models or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from music_ray.evaluate.stats import Resampling, bootstrap_mean

CUTS = {"by_source": "sources", "by_num_turns": "num_turns", "by_branch_turn": "branch_turns"}
"""Names of the breakdowns, and the PairFacts column that each goes by."""
_FEWEST = 3
"""Pairs without which a rank correlation says nothing."""


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What is known of pairs without a model: columns of the same length, [n]."""

    sources: np.ndarray
    """Text."""
    num_turns: np.ndarray
    """User messages of the chosen side."""
    branch_turns: np.ndarray
    """The first turn, counted from 1, in which the sides differ; 0 where they do not."""
    contexts: np.ndarray
    """int64: which pairs begin with the same user message. Intervals resample these."""


def has_scores(scores: np.ndarray) -> np.ndarray:
    """Whether both sides have a score, [n]; scores are [n, 2], chosen and rejected."""
    return np.isfinite(scores).all(axis=1)


def is_tie(scores: np.ndarray) -> np.ndarray:
    """Whether both sides have the same score, [n]."""
    return has_scores(scores) & (scores[:, 0] == scores[:, 1])


def is_right(scores: np.ndarray) -> np.ndarray:
    """Whether the chosen side scores higher, [n]; neither a tie nor a missing score is."""
    return has_scores(scores) & (scores[:, 0] > scores[:, 1])


def accuracy(
    scores: np.ndarray, contexts: np.ndarray, lengths: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    """One accuracy, with its interval over contexts and all that must be said beside it.

    Args:
        scores: [n, 2], chosen and rejected; not a number where a side has none.
        contexts: of each pair, [n].
        lengths: of both sides, [n, 2], in tokens or characters.

    Raises:
        ValueError: no pairs.
    """
    found = bootstrap_mean(is_right(scores).astype(float), contexts, resampling)
    return {
        "num_pairs": len(scores),
        "num_contexts": len(np.unique(contexts)),
        "accuracy": found.value,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "ties": int(is_tie(scores).sum()),
        "unscored": int((~has_scores(scores)).sum()),
        **length_correlation(scores, lengths),
    }


def accuracy_by(
    scores: np.ndarray, facts: PairFacts, lengths: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    """accuracy of all pairs as `overall`, and of each part of every breakdown in CUTS.

    Args:
        scores, lengths: see accuracy.
    """
    return {
        "overall": accuracy(scores, facts.contexts, lengths, resampling),
        **{
            cut: {
                name: accuracy(scores[part], facts.contexts[part], lengths[part], resampling)
                for name, part in parts(facts, cut)
            }
            for cut in CUTS
        },
    }


def parts(facts: PairFacts, cut: str) -> list[tuple[str, np.ndarray]]:
    """The parts of a breakdown in order, each with the mask of its pairs, [n]."""
    column = getattr(facts, CUTS[cut])
    return [(str(value), column == value) for value in np.unique(column).tolist()]


def length_correlation(scores: np.ndarray, lengths: np.ndarray) -> dict[str, float | None]:
    """Spearman's rank correlations of score and length.

    Args:
        scores, lengths: [n, 2], chosen and rejected.

    Returns:
        score_length: over all conversations; margin_length: of the difference in score and the difference
        in length of a pair, from which what both sides share has gone. None where it is not defined.
    """
    there = has_scores(scores)
    scores, lengths = scores[there], lengths[there]
    return {
        "score_length": _spearman(scores.ravel(), lengths.ravel()),
        "margin_length": _spearman(scores[:, 0] - scores[:, 1], lengths[:, 0] - lengths[:, 1]),
    }


def _spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    if len(one) < _FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
