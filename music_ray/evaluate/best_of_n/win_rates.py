"""Win rates with intervals: over prompts with an outcome, differing picks, at equal length; their trend by N.

The unit of resampling is the prompt. What is invalid or unanswered is counted and enters no average. Equal
picks need no verdict and so always have an outcome: the more verdicts are missing, the nearer a win rate is
to a half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from music_ray.evaluate.best_of_n.length_control import controlled_win_rate
from music_ray.evaluate.best_of_n.outcomes import FIRST, OUTCOMES, SECOND, Outcomes
from music_ray.evaluate.stats import Interval, Resampling, bootstrap_mean

_COUNTS = {FIRST: "first_wins", SECOND: "second_wins"}


def win_rates(found: Outcomes, resampling: Resampling) -> dict[str, Any]:
    """What one comparison comes to.

    Returns:
        num_prompts and a count of each outcome (first_wins, second_wins, same, tie, invalid, unanswered);
        num_counted, the prompts whose outcome is neither invalid nor unanswered; win_rate (over these, ties
        and equal picks being half a win), win_rate_differing (over those of them with different picks) and
        length_controlled (the same at equal length), each with _low and _high, None where nothing can be
        averaged; mean_length_difference, in characters over differing picks.
    """
    counts = Counter(found.names.tolist())
    values = found.values
    known = ~np.isnan(values)
    differing = known & found.differing
    result: dict[str, Any] = {
        "num_prompts": len(values),
        "num_counted": int(known.sum()),
        **{_COUNTS.get(name, name): counts[name] for name in OUTCOMES},
        **_named("win_rate", _mean(values[known], resampling)),
        **_named("win_rate_differing", _mean(values[differing], resampling)),
        **_named(
            "length_controlled",
            controlled_win_rate(values[differing], found.differences[differing], resampling),
        ),
    }
    lengths = found.differences[differing]
    return result | {"mean_length_difference": float(lengths.mean()) if len(lengths) else None}


def trend(by_n: Sequence[Outcomes], resampling: Resampling) -> dict[str, Any]:
    """How the win rate changes each time that N doubles, over the prompts that have an outcome for every N.

    Args:
        by_n: the same pickers and selection, the same prompts; two N or more.

    Returns:
        num_prompts; slope with _low and _high, None without prompts.
    """
    doublings = np.log2([one.comparison.n for one in by_n])  # [k]
    values = np.stack([one.values for one in by_n])  # [k, n]
    whole = ~np.isnan(values).any(axis=0)
    centred = doublings - doublings.mean()
    # The slope of the mean is the mean of the prompts' slopes: all have the same N.
    slopes = centred @ values[:, whole] / (centred @ centred)  # [n]
    return {"num_prompts": int(whole.sum()), **_named("slope", _mean(slopes, resampling))}


def mean_checked(values: np.ndarray, resampling: Resampling) -> dict[str, Any]:
    """How good a picker's conversations are by the checker.

    Args:
        values: not a number where it can't say, [n].

    Returns:
        num_prompts; mean with _low and _high, None without any.
    """
    known = values[~np.isnan(values)]
    return {"num_prompts": len(known), **_named("mean", _mean(known, resampling))}


def _mean(values: np.ndarray, resampling: Resampling) -> Interval | None:
    return bootstrap_mean(values, np.arange(len(values)), resampling) if len(values) else None


def _named(name: str, found: Interval | None) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
