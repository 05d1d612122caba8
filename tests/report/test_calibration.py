"""Whether margins mean what they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.report.calibration import calibration, confidence

LN3, LN9 = math.log(3), math.log(9)


def test_bins_and_error_by_hand() -> None:
    found = calibration("A", [LN9, -LN9, LN3, LN3, 0.0, math.nan])
    assert found is not None
    # Twice 90% sure and right once, twice 75% sure and right both times.
    assert (found.num_pairs, found.num_ties, found.accuracy) == (4, 1, 0.75)
    assert found.confidence == pytest.approx(0.825)
    assert [(one.num_pairs, one.accuracy) for one in found.bins] == [(2, 1.0), (2, 0.5)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.75, 0.9])
    assert found.error == pytest.approx((2 * 0.25 + 2 * 0.4) / 4)


def test_without_a_preference_there_is_none() -> None:
    assert calibration("A", []) is None
    assert calibration("A", [0.0, math.inf, math.nan]) is None


def test_a_model_that_is_certain_is_in_the_last_bin() -> None:
    found = calibration("A", [800.0, -800.0])
    assert found is not None
    assert [(one.low, one.high, one.num_pairs) for one in found.bins] == [(0.95, 1.0, 2)]
    assert found.error == 0.5


@given(st.lists(st.floats(-30, 30), min_size=1))
def test_every_pair_with_a_preference_is_in_one_bin_that_holds_its_confidence(margins: list[float]) -> None:
    found = calibration("A", margins)
    if found is None:
        assert not any(margins)
        return
    assert sum(one.num_pairs for one in found.bins) == found.num_pairs == sum(map(bool, margins))
    assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in found.bins)
    assert 0 <= found.error <= 1


def test_confidence_does_not_depend_on_the_side() -> None:
    assert confidence(LN3) == confidence(-LN3) == pytest.approx(0.75)
