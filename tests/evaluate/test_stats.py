"""The bootstrap: against scipy, against theory, and what clustering does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from music_ray.evaluate.stats import clustered_bootstrap


def interval(values, groups=None, samples=4000):
    values = np.asarray(values, dtype=float)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    return clustered_bootstrap(values, groups, samples=samples, confidence=0.95, seed=1)


def test_it_agrees_with_scipy_where_every_pair_is_its_own_conversation():
    values = np.random.default_rng(0).normal(0.3, 1.0, 200)
    ours = interval(values)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", random_state=1
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_copies_of_one_pair_add_no_certainty():
    values = np.random.default_rng(0).normal(0.0, 1.0, 50)
    alone = interval(values)
    copied = interval(np.repeat(values, 20), np.repeat(np.arange(50), 20))
    naive = interval(np.repeat(values, 20))
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert naive.high - naive.low < 0.3 * (copied.high - copied.low)


def test_coverage_is_what_it_says():
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        values = generator.binomial(1, 0.7, 100).astype(float)
        found = clustered_bootstrap(values, np.arange(100), samples=400, confidence=0.9, seed=trial)
        hits += found.low <= 0.7 <= found.high
    assert 0.84 <= hits / 300 <= 0.96


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_the_interval_lies_among_the_values(rows):
    values = np.array([value for value, _ in rows])
    found = interval(values, [group for _, group in rows], samples=200)
    assert values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9
    assert found.value == pytest.approx(values.mean())


def test_one_conversation_has_no_width_and_none_is_an_error():
    found = interval([1.0, 0.0, 1.0], [3, 3, 3])
    assert found.low == found.high == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no values to average"):
        interval([])
