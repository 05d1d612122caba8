"""The bootstrap: against scipy, against theory, and what clustering does."""

from fractions import Fraction
from itertools import accumulate, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from music_ray.evaluate.stats import (
    Resampling,
    bootstrap_mean,
    clustered_bootstrap,
    stratified_bootstrap,
)
from music_ray.paired_tests import mcnemar_test, sign_flip_test


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


def test_strata_are_weighted_and_resampled_each_by_itself():
    generator = np.random.default_rng(4)
    values = generator.normal(0.0, 1.0, 80)
    strata = [(values, np.arange(80), 3.0), (np.full(5, 10.0), np.arange(5), 1.0)]
    found = stratified_bootstrap(strata, Resampling(samples=4000))
    assert found.value == pytest.approx(0.75 * values.mean() + 2.5)
    # The second stratum is a constant: what is left is three quarters of the first one's width.
    alone = bootstrap_mean(values, np.arange(80), Resampling(samples=4000))
    assert found.high - found.low == pytest.approx(0.75 * (alone.high - alone.low), rel=0.05)
    with pytest.raises(ValueError, match="no values to average"):
        stratified_bootstrap([(np.empty(0), np.empty(0), 1.0)], Resampling())


@given(st.floats(-3, 3), st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_a_constant_has_an_interval_of_no_width(value, groups):
    found = bootstrap_mean(np.full(len(groups), value), np.array(groups), Resampling(samples=100))
    assert found.low == pytest.approx(value) and found.high == pytest.approx(value)


# -- the paired tests ------------------------------------------------------------------------------


def flips(sums):
    """The test's p-value by trying every flip of every group."""
    totals = [
        abs(sum(sign * one for sign, one in zip(signs, sums, strict=True)))
        for signs in product((1, -1), repeat=len(sums))
    ]
    return sum(total >= abs(sum(sums)) for total in totals) / len(totals)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 6)), min_size=1, max_size=20))
def test_the_sign_flip_test_counts_all_flips(rows):
    differences, groups = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    sums = [int(differences[groups == group].sum()) for group in set(groups.tolist())]
    found = sign_flip_test(differences, groups)
    assert found == pytest.approx(flips(sums))
    assert sign_flip_test(-differences, groups) == pytest.approx(found)


ONES, TWOS = 5000, 3000
"""Groups whose sums are ±1 and ±2: so many that their distributions are convolved by FFT."""


def binomials(number):
    return list(accumulate(range(number), lambda one, k: one * (number - k) // (k + 1), initial=1))


def exact_p_value(total):
    """Whole numbers: the flips that come to at least `total`, by how many of each kind are positive."""
    at_least = list(accumulate(reversed(binomials(TWOS)), initial=0))[::-1]
    ways = 0
    for ones, number in enumerate(binomials(ONES)):
        twos = -(-(total + ONES - 2 * ones + 2 * TWOS) // 4)
        ways += number * at_least[min(max(twos, 0), TWOS + 1)]
    return 2 * Fraction(ways, 2 ** (ONES + TWOS))


@pytest.mark.parametrize("negative", [3300, 3600, 3800, 3900])
def test_far_tails_are_as_exact_as_near_ones(negative):
    """An FFT alone knows nothing below 1e-17, and gives 0 or noise; here are p-values down to 1e-103."""
    signs = np.ones(ONES + TWOS, dtype=int)
    signs[::2][:negative] = -1  # of both kinds
    sums = np.repeat([1, 2], [ONES, TWOS])
    found = sign_flip_test(np.repeat(signs, sums), np.repeat(np.arange(ONES + TWOS), sums))
    exact = float(exact_p_value(int(signs @ sums)))
    assert found == pytest.approx(exact, rel=1e-9, abs=0)


def test_where_all_agree_two_flips_are_as_far():
    differences = np.ones(900, dtype=int)
    assert sign_flip_test(differences, np.arange(900) // 3) == pytest.approx(2 / 2**300, rel=1e-9, abs=0)
    assert sign_flip_test(np.ones(4000, dtype=int), np.arange(4000)) == 0.0, "below what a double can be"


def test_no_difference_proves_nothing():
    assert sign_flip_test(np.array([1, -1, 0]), np.arange(3)) == 1.0
    assert sign_flip_test(np.zeros(4), np.arange(4)) == 1.0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10))
def test_with_one_pair_a_context_it_is_mcnemar_s_test(only_first, only_second, same):
    differences = np.repeat([1, -1, 0], [only_first, only_second, same])
    found = sign_flip_test(differences, np.arange(len(differences))) if len(differences) else 1.0
    assert found == pytest.approx(mcnemar_test(only_first, only_second))


def test_mcnemar_by_hand():
    assert mcnemar_test(0, 0) == 1.0
    assert mcnemar_test(5, 0) == 2 / 2**5
    assert mcnemar_test(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)


def test_ten_copies_of_a_context_prove_no_more_than_one():
    differences = np.array([1, 1, -1, 1])
    alone = sign_flip_test(differences, np.arange(4))
    copied = sign_flip_test(np.repeat(differences, 10), np.repeat(np.arange(4), 10))
    assert copied == pytest.approx(alone) == pytest.approx(10 / 16)
    assert mcnemar_test(30, 10) < 0.003


def test_many_contexts_take_no_time_and_no_memory():
    generator = np.random.default_rng(1)
    differences = generator.integers(-1, 2, 200_000)
    found = sign_flip_test(differences, generator.integers(0, 80_000, 200_000))
    assert 0.0 < found <= 1.0
