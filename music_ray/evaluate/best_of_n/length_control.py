"""A win rate at equal length: what is left of a model's wins where its conversations are no longer.

Judges like length. As the length-controlled AlpacaEval does (Dubois et al. 2024, arXiv:2404.04475), the
verdicts are fitted by a logistic regression on the difference in length, tanh(difference ÷ its standard
deviation), and the intercept, the log odds at no difference, is given as a win rate. Their term for a
prompt's difficulty is left out: it needs many models. The module knows numbers, not judges.
"""

from __future__ import annotations

import numpy as np

from music_ray.evaluate.stats import Interval, Resampling

RIDGE_SLOPE = 1.0
"""Penalty of the slope, as half its square: with few verdicts, length would explain whatever it is given."""
RIDGE_INTERCEPT = 0.01
"""Penalty of the intercept: it stays finite where one side wins always."""
_STEPS = 60
_LARGEST_STEP = 2.0
_SLICE = 256
"""Resamples that are fitted at once."""


def controlled_win_rate(wins: np.ndarray, differences: np.ndarray, resampling: Resampling) -> Interval | None:
    """The win rate at equal length, with a percentile interval over resampled prompts.

    Args:
        wins: 1 for a win, 0 for a loss, 0.5 for a tie, [n].
        differences: length of the first conversation less that of the second, [n], in any unit.

    Returns:
        None without any, and where all differ in length by the same: nothing says then what length does.
    """
    n = len(wins)
    spread = differences.std() if n else 0.0
    if n == 0 or (spread == 0 and differences[0] != 0):
        return None
    x = np.tanh(differences / spread) if spread else np.zeros(n)
    value = _fit(np.ones((1, n)), x, wins)[0]
    generator = np.random.default_rng(resampling.seed)
    found = []
    for start in range(0, resampling.samples, _SLICE):
        size = min(_SLICE, resampling.samples - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), size=size)  # [s, n]
        found.append(_fit(weights, x, wins))
    tail = (1 - resampling.confidence) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def _fit(weights: np.ndarray, x: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """The win rate at x = 0 for each row of weights, [s]: Newton's method, all rows at once."""
    intercept, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_STEPS):
        odds = _sigmoid(intercept[:, None] + slope[:, None] * x)  # [s, n]
        residual = weights * (wins - odds)
        curvature = weights * odds * (1 - odds)
        down_intercept = residual.sum(axis=1) - RIDGE_INTERCEPT * intercept
        down_slope = (residual * x).sum(axis=1) - RIDGE_SLOPE * slope
        both = curvature.sum(axis=1) + RIDGE_INTERCEPT
        mixed = (curvature * x).sum(axis=1)
        slopes = (curvature * x * x).sum(axis=1) + RIDGE_SLOPE
        determinant = both * slopes - mixed * mixed
        step = np.stack(
            [
                (slopes * down_intercept - mixed * down_slope) / determinant,
                (both * down_slope - mixed * down_intercept) / determinant,
            ]
        )
        step = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        intercept, slope = intercept + step[0], slope + step[1]
        if np.abs(step).max() < 1e-9:
            break
    return _sigmoid(intercept)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(value / 2))
