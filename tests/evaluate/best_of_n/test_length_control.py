"""Win rates at equal length: known mixtures, the same fit as scikit-learn's, and what can't be fitted."""

import numpy as np
import pytest

from music_ray.evaluate.best_of_n.length_control import RIDGE_SLOPE, controlled_win_rate
from music_ray.evaluate.stats import Resampling

FEW = Resampling(samples=300)


def verdicts(n: int, intercept: float, slope: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Wins drawn from the model itself: lengths are longer by `shift` on average."""
    generator = np.random.default_rng(1)
    differences = generator.normal(shift, 100, n)
    odds = 1 / (1 + np.exp(-(intercept + slope * np.tanh(differences / differences.std()))))
    return (generator.random(n) < odds).astype(float), differences


def test_a_win_rate_that_is_length_alone_is_a_half_at_equal_length() -> None:
    wins, differences = verdicts(4000, intercept=0.0, slope=2.0, shift=80)
    found = controlled_win_rate(wins, differences, FEW)
    assert wins.mean() > 0.67
    assert found is not None and found.low < 0.5 < found.high and found.high - found.low < 0.08


def test_an_advantage_besides_length_stays() -> None:
    wins, differences = verdicts(4000, intercept=0.8, slope=-2.0, shift=80)
    found = controlled_win_rate(wins, differences, FEW)
    assert wins.mean() < 0.53
    assert found is not None and found.value == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.03)


def test_the_fit_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    wins, differences = verdicts(300, intercept=0.5, slope=1.0, shift=50)
    x = np.tanh(differences / differences.std())[:, None]
    peer = LogisticRegression(C=1 / RIDGE_SLOPE, tol=1e-10).fit(x, wins)
    found = controlled_win_rate(wins, differences, Resampling(samples=2))
    assert found is not None
    # They leave the intercept without a penalty; ours is a hundredth of one verdict.
    assert found.value == pytest.approx(1 / (1 + np.exp(-peer.intercept_[0])), abs=1e-4)


def test_ties_are_halves_and_a_swap_is_the_complement() -> None:
    wins, differences = verdicts(200, intercept=0.5, slope=1.0, shift=50)
    wins[::5] = 0.5
    found = controlled_win_rate(wins, differences, FEW)
    swapped = controlled_win_rate(1 - wins, -differences, FEW)
    assert found is not None and swapped is not None
    assert found.value == pytest.approx(1 - swapped.value, abs=1e-6)
    assert found.low == pytest.approx(1 - swapped.high, abs=1e-6)


def test_where_one_side_wins_always_it_stays_finite() -> None:
    found = controlled_win_rate(np.ones(50), np.arange(50.0), FEW)
    assert found is not None and 0.97 < found.value < 1 and np.isfinite([found.low, found.high]).all()
    equal = controlled_win_rate(np.array([1.0, 1.0, 1.0, 0.0]), np.zeros(4), FEW)
    assert equal is not None and equal.value == pytest.approx(0.75, abs=0.003), "no difference to control for"
    assert controlled_win_rate(np.ones(4), np.full(4, 3.0), FEW) is None, "length could explain all of it"
    assert controlled_win_rate(np.empty(0), np.empty(0), FEW) is None
