"""Agreement of a reward model with a judge's recorded verdicts, on whole conversations and turn by turn.

Which side of a pair is called chosen is nothing that either of them was told, so nothing here depends on it:
Cohen's kappa counts every pair in both orders. (In one order it would be 0 for every model on a set in which
the judge always prefers the chosen side.) An invalid verdict is counted and enters no number.
The module knows arrays, not models, files or prompts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from music_ray.evaluate.accuracy import is_right, is_tie, length_correlation
from music_ray.evaluate.stats import Resampling, bootstrap_mean

CHOSEN, REJECTED, TIE, INVALID = "chosen", "rejected", "tie", "invalid"
OUTCOMES = (CHOSEN, REJECTED, TIE, INVALID)
"""What a judge can have said of a pair."""
_MUTE = 2
"""Beside the signs: the model has no score for a side."""
_SIGNS = {CHOSEN: 1, REJECTED: -1, TIE: 0}


def agreement(
    scores: np.ndarray,
    outcomes: np.ndarray,
    contexts: np.ndarray,
    lengths: np.ndarray,
    resampling: Resampling,
) -> dict[str, Any]:
    """How often a model prefers the side that the judge prefers.

    Args:
        scores: [n, 2], chosen and rejected; a tie or a missing score agrees with no preference.
        outcomes: what the judge said of each pair, one of OUTCOMES, [n].
        contexts: of each pair, [n].
        lengths: of both sides, [n, 2].

    Returns:
        accuracy with its interval, over the num_decided pairs of which the judge prefers a side, and the
        correlations of the model's scores and length on these (each pair in both orders); num_contexts of
        these; kappa, over these and the judge's ties, None where it is not defined; how many there are of
        each outcome.
    """
    decided = np.isin(outcomes, (CHOSEN, REJECTED))
    counts = {f"judge_{name}": int((outcomes == name).sum()) for name in OUTCOMES}
    result: dict[str, Any] = {"num_verdicts": len(outcomes), **counts, "num_decided": int(decided.sum())}
    result["num_contexts"] = len(np.unique(contexts[decided]))
    both = [np.concatenate([one[decided], one[decided, ::-1]]) for one in (scores, lengths)]
    result |= length_correlation(both[0], both[1])
    result |= dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"))
    if decided.any():
        right = _preferences(scores)[decided] == _signs(outcomes[decided])
        found = bootstrap_mean(right.astype(float), contexts[decided], resampling)
        result |= {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}
    return result | {"kappa": _kappa(scores, outcomes)}


def agreement_by_turn(
    scores: np.ndarray,
    outcomes: np.ndarray,
    turns: np.ndarray,
    contexts: np.ndarray,
    lengths: np.ndarray,
    resampling: Resampling,
) -> dict[str, dict[str, Any]]:
    """agreement for each turn of which there are verdicts, by the turn's number as text.

    Args:
        scores: of both sides' conversations up to and with the turn, [n, 2]: a row a pair and turn.
        outcomes: the verdicts on those, [n].
        turns: counted from 1, [n].
        contexts: of each pair, [n].
        lengths: of those conversations, [n, 2].
    """
    return {
        str(turn): agreement(scores[at], outcomes[at], contexts[at], lengths[at], resampling)
        for turn in np.unique(turns).tolist()
        for at in [turns == turn]
    }


def _preferences(scores: np.ndarray) -> np.ndarray:
    """1 where the chosen side scores higher, −1 where the rejected one does, 0 where neither, [n]."""
    return is_right(scores).astype(int) - is_right(scores[:, ::-1]).astype(int)


def _signs(outcomes: np.ndarray) -> np.ndarray:
    return np.array([_SIGNS[one] for one in outcomes.tolist()], dtype=int)


def _kappa(scores: np.ndarray, outcomes: np.ndarray) -> float | None:
    """Over pairs that have a verdict, both orders of each. Where the model says nothing is a category of its
    own, in which the judge has no pair: left out, it would help the model that can't read a pair."""
    from sklearn.metrics import cohen_kappa_score

    said = outcomes != INVALID
    mute = ~is_tie(scores[said]) & (_preferences(scores[said]) == 0)
    model, judge = _preferences(scores[said]), _signs(outcomes[said])
    if not np.any(model) and not np.any(judge) and not np.any(mute):
        return None  # nothing but ties, or nothing at all: chance alone agrees on everything
    orders = [np.where(mute, _MUTE, one) for one in (model, -model)]
    found = cohen_kappa_score(np.concatenate(orders), np.concatenate([judge, -judge]))
    return float(found) if np.isfinite(found) else None
