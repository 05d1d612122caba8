"""Outcomes and what they come to: exact counts and averages."""

import numpy as np
import pytest

from music_ray.evaluate.best_of_n.outcomes import Outcomes, by_checker
from music_ray.evaluate.best_of_n.questions import Comparison
from music_ray.evaluate.best_of_n.win_rates import mean_checked, trend, win_rates
from music_ray.evaluate.stats import Resampling

FEW = Resampling(samples=200)


def outcomes_of(*names: str, n: int = 2) -> Outcomes:
    differences = np.arange(len(names), dtype=float)
    return Outcomes(Comparison("a", "b", "turn", n), np.array(names, dtype=object), differences)


def test_ties_are_split_and_what_is_invalid_is_in_no_average() -> None:
    found = win_rates(
        outcomes_of("same", "same", "first", "first", "first", "second", "tie", "invalid", "unanswered"), FEW
    )
    counts = {name: found[name] for name in ("num_prompts", "same", "tie", "invalid", "unanswered")}
    assert counts == {"num_prompts": 9, "same": 2, "tie": 1, "invalid": 1, "unanswered": 1}
    assert (found["first_wins"], found["second_wins"]) == (3, 1)
    assert found["num_counted"] == 7
    assert found["win_rate"] == pytest.approx((2 * 0.5 + 3 + 0.5) / 7)
    assert found["win_rate_differing"] == pytest.approx(3.5 / 5)
    assert found["win_rate_low"] < found["win_rate"] < found["win_rate_high"]
    assert found["mean_length_difference"] == 4.0, "of the picks that differ: 2, 3, 4, 5 and 6"
    assert found["length_controlled"] is not None


def test_equal_picks_alone_are_half_a_win_and_have_no_rate_where_picks_differ() -> None:
    found = win_rates(outcomes_of("same", "same"), FEW)
    assert (found["win_rate"], found["win_rate_low"], found["win_rate_high"]) == (0.5, 0.5, 0.5)
    assert found["win_rate_differing"] is found["length_controlled"] is None
    assert found["mean_length_difference"] is None


@pytest.mark.parametrize("names", [(), ("invalid", "unanswered")])
def test_nothing_that_counts_is_no_number(names) -> None:
    found = win_rates(outcomes_of(*names), FEW)
    assert (found["num_prompts"], found["num_counted"]) == (len(names), 0)
    assert found["win_rate"] is found["win_rate_low"] is found["win_rate_differing"] is None


def test_missing_verdicts_pull_a_win_rate_towards_a_half_but_not_that_of_differing_picks() -> None:
    whole = win_rates(outcomes_of("same", "same", "first", "first"), FEW)
    assert (whole["num_counted"], whole["win_rate"], whole["win_rate_differing"]) == (4, 0.75, 1.0)
    lacking = win_rates(outcomes_of("same", "same", "first", "invalid"), FEW)
    assert (lacking["num_counted"], lacking["win_rate"]) == (3, pytest.approx(2 / 3))
    assert lacking["win_rate_differing"] == 1.0


def test_the_trend_is_the_change_with_each_doubling() -> None:
    by_n = [
        outcomes_of("same", "second", "first", n=2),
        outcomes_of("same", "tie", "first", n=4),
        outcomes_of("same", "first", "invalid", n=8),
    ]
    found = trend(by_n, FEW)
    assert found["num_prompts"] == 2, "the third has no outcome for N = 8"
    assert found["slope"] == pytest.approx((0 + 0.5) / 2)
    lopsided = [outcomes_of("second", n=2), outcomes_of("first", n=8)]
    assert trend(lopsided, FEW)["slope"] == pytest.approx(0.5), "from 2 to 8 are two doublings"
    assert trend([outcomes_of("invalid"), outcomes_of("first", n=4)], FEW)["slope"] is None


def test_the_checker_stands_in_for_a_judge() -> None:
    def judged(first, second):
        return by_checker(None, {"checked": first}, {"checked": second})

    assert [judged(1.0, 0.0), judged(0.0, 1.0), judged(1.0, 1.0)] == ["first", "second", "tie"]
    assert judged(None, 1.0) == judged(1.0, None) == "unanswered"
    found = mean_checked(np.array([1.0, 0.0, np.nan, 1.0, 1.0]), FEW)
    assert (found["num_prompts"], found["mean"]) == (4, 0.75)
    assert mean_checked(np.array([np.nan]), FEW)["mean"] is None
