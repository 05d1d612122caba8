"""A linear model that tries to tell chosen from rejected, and how well it does on pairs it has not seen.

Each pair is one row: features of chosen minus features of rejected. The model is a logistic regression
without intercept, so it is anti-symmetric: a pair in the other order has the same score with the other
sign, and with every pair presented in both orders a model that knows nothing has an AUC of 0.5. This
module knows numbers and groups; it does not know text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from music_ray.config import AuditConfig

_SLICE = 64
"""Resamples that are in memory at once."""
_MAX_ITERATIONS = 500


@dataclass(frozen=True, slots=True)
class Probe:
    """What cross-validation found."""

    auc: float
    low: float
    high: float
    coefficients: np.ndarray
    """Of a model that saw all pairs, for the features as it was shown them, [f]."""
    means: np.ndarray
    """Mean difference of each feature, as the model was shown it, [f]: above 0 where chosen has more."""

    @property
    def shares(self) -> np.ndarray:
        """What each feature adds to the mean score of a pair, [f]: they sum to that score."""
        return self.coefficients * self.means


def cross_validate(
    differences: Any,
    groups: np.ndarray,
    config: AuditConfig,
    seed: int,
    *,
    strength: float,
    standardise: bool,
) -> Probe:
    """Fits on all folds but one, scores that one, and measures the AUC within each fold.

    Args:
        differences: features of chosen minus those of rejected, [n, f], dense or scipy-sparse.
        groups: conversation of each pair, [n]; all pairs of a conversation are in one fold.
        strength: inverse of the penalty on the coefficients (scikit-learn's C).
        standardise: divide each feature by its standard deviation over the training folds.
    """
    from sklearn.model_selection import GroupKFold
    from threadpoolctl import threadpool_limits

    folds = GroupKFold(config.folds, shuffle=True, random_state=seed % 2**32)
    scores = np.empty(differences.shape[0])
    parts = []
    # One thread: such small fits gain nothing by more, and on a busy machine lose a lot.
    with threadpool_limits(1):
        for train, test in folds.split(differences, groups=groups):
            scale = _scale(differences[train], standardise)
            coefficients = _fit(_scaled(differences[train], scale), strength)
            scores[test] = _scaled(differences[test], scale) @ coefficients
            parts.append(test)
        shown = _scaled(differences, _scale(differences, standardise))
        final = _fit(shown, strength)
    auc, low, high = _interval(scores, parts, groups, config, seed)
    return Probe(auc, low, high, final, np.asarray(shown.mean(axis=0)).reshape(-1))


def both_orders_auc(scores: np.ndarray) -> float:
    """AUC of scores where each pair counts once with its score and once, in the other order, without.

    It is the probability that two pairs' scores sum to more than 0, ties counting half.
    """
    return float(_weighted_auc(scores, np.ones((1, len(scores))))[0])


def _fit(rows: Any, strength: float) -> np.ndarray:
    """Coefficients of the anti-symmetric model, [f]."""
    from sklearn.linear_model import LogisticRegression

    if not rows.shape[1]:
        return np.zeros(0)
    # Without an intercept a pair in one order and in the other give the same loss, so each is shown in one
    # order, half of them turned round: the coefficients are those of both orders at twice the strength.
    signs = np.where(np.arange(rows.shape[0]) % 2, -1, 1)
    turned = rows.multiply(signs[:, None]).tocsr() if hasattr(rows, "multiply") else rows * signs[:, None]
    model = LogisticRegression(C=2 * strength, fit_intercept=False, max_iter=_MAX_ITERATIONS, tol=1e-6)
    return model.fit(turned, signs).coef_[0]


def _scale(rows: Any, standardise: bool) -> np.ndarray:
    """Standard deviation of each feature over both orders of the pairs (their mean is 0), [f]."""
    if not standardise:
        return np.ones(rows.shape[1])
    squares = rows.multiply(rows) if hasattr(rows, "multiply") else rows * rows
    return np.sqrt(np.asarray(squares.mean(axis=0)).reshape(-1))


def _scaled(rows: Any, scale: np.ndarray) -> Any:
    """Rows divided by the scale; a feature that never differs stays 0."""
    factors = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    return rows.multiply(factors).tocsr() if hasattr(rows, "multiply") else rows * factors


# -- the interval ----------------------------------------------------------------------------------


def _interval(
    scores: np.ndarray, parts: list[np.ndarray], groups: np.ndarray, config: AuditConfig, seed: int
) -> tuple[float, float, float]:
    """The mean AUC of the folds with an interval over resampled conversations.

    The folds' models share most of their training pairs, so their errors go together, which resampling
    the scores can't see: the interval is widened as Nadeau and Bengio (2003) correct the variance of a
    cross-validation, by 1 + (pairs tested / pairs trained on) · folds.
    """
    value = float(_mean_auc(scores, parts, np.ones((1, len(scores))))[0])
    resampled = np.concatenate(
        [_mean_auc(scores, parts, weights) for weights in _resamples(groups, config.bootstrap_samples, seed)]
    )
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    widened = math.sqrt(1 + config.folds / (config.folds - 1))
    return (
        value,
        float(max(0.0, value - widened * max(0.0, value - low))),
        float(min(1.0, value + widened * max(0.0, high - value))),
    )


def _resamples(groups: np.ndarray, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each pair is drawn when whole conversations are drawn with replacement, [b, n]."""
    _, index = np.unique(groups, return_inverse=True)
    num_groups = int(index.max()) + 1
    generator = np.random.default_rng([seed, num_groups])
    shares = np.full(num_groups, 1 / num_groups)
    for start in range(0, samples, _SLICE):
        size = min(_SLICE, samples - start)
        yield generator.multinomial(num_groups, shares, size=size)[:, index].astype(float)


def _mean_auc(scores: np.ndarray, parts: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The folds' AUCs, averaged by the pairs that are drawn of each, [b].

    Within a fold all scores are of one model. Scores of different models can't be compared: each model
    was trained on the other's test pairs.
    """
    total = np.zeros(len(weights))
    for part in parts:
        drawn = weights[:, part].sum(axis=1)
        total += drawn * np.nan_to_num(_weighted_auc(scores[part], weights[:, part]), nan=0.5)
    return total / weights.sum(axis=1)


def _weighted_auc(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """both_orders_auc with a weight for each pair: scores [n], weights [b, n], result [b]."""
    turned = np.sort(-scores)
    order = np.argsort(-scores, kind="stable")
    below = np.searchsorted(turned, scores, "left")
    upto = np.searchsorted(turned, scores, "right")
    cumulated = np.concatenate(
        [np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1
    )  # [b, n + 1]
    wins = (weights * (cumulated[:, below] + cumulated[:, upto])).sum(axis=1) / 2
    squared = weights.sum(axis=1) ** 2
    return np.divide(wins, squared, out=np.full(len(weights), np.nan), where=squared > 0)
