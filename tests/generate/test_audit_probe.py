"""The probe: exact AUCs, anti-symmetry, and intervals that hold what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from music_ray.config import AuditConfig
from music_ray.generate.audit.probe import Probe, both_orders_auc, cross_validate
from tests.generate.audit_samples import CONFIG


def probe(rows: Any, groups: np.ndarray | None = None, seed: int = 0, *, standardise: bool = True) -> Probe:
    groups = np.arange(rows.shape[0]) if groups is None else groups
    return cross_validate(rows, groups, CONFIG, seed, strength=0.1, standardise=standardise)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_the_auc_is_that_of_all_pairs_in_both_orders(scores: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    both = [*scores, *(-one for one in scores)]
    expected = roc_auc_score([1] * len(scores) + [0] * len(scores), both)
    assert both_orders_auc(np.array(scores, dtype=float)) == pytest.approx(expected)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_turned_scores_have_one_minus_the_auc(scores: list[int]) -> None:
    values = np.array(scores, dtype=float)
    assert both_orders_auc(-values) == pytest.approx(1 - both_orders_auc(values))
    assert both_orders_auc(np.zeros(3)) == 0.5


def test_a_pair_in_the_other_order_changes_nothing() -> None:
    rows = np.random.default_rng(0).normal(0.3, 1, (80, 3))
    turned = rows * np.where(np.arange(80) % 3, 1, -1)[:, None]
    for other in (-rows, rows * np.array([1.0, 10.0, 100.0])):
        one, two = probe(rows), probe(other)
        assert (one.auc, one.low, one.high) == pytest.approx((two.auc, two.low, two.high))
    assert probe(rows).auc > 0.6 and probe(turned).auc != probe(rows).auc


def test_coefficients_are_those_of_every_pair_in_both_orders() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows = np.random.default_rng(1).normal(0.2, 2, (70, 4))
    both, labels = np.vstack([rows, -rows]), np.repeat([1, 0], 70)
    model = LogisticRegression(C=0.1, fit_intercept=False, tol=1e-8, max_iter=1000)
    model.fit(StandardScaler().fit_transform(both), labels)
    assert probe(rows).coefficients == pytest.approx(model.coef_[0], abs=1e-4)


def test_sparse_and_dense_rows_agree() -> None:
    rows = np.random.default_rng(2).normal(0.2, 1, (60, 5)) * (np.random.default_rng(3).random((60, 5)) < 0.4)
    for standardise in (True, False):
        one = probe(rows, standardise=standardise)
        two = probe(sparse.csr_matrix(rows), standardise=standardise)
        assert (one.auc, one.low, one.high) == pytest.approx((two.auc, two.low, two.high))
        assert one.coefficients == pytest.approx(two.coefficients, abs=1e-5)
        assert one.shares == pytest.approx(two.shares, abs=1e-5)


def test_a_feature_that_never_differs_and_one_that_always_does() -> None:
    rows = np.stack([np.zeros(50), np.full(50, 0.01)], axis=1)
    found = probe(rows)
    assert (found.auc, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.coefficients[0] == 0 and found.coefficients[1] > 0
    assert probe(np.zeros((50, 2))).auc == 0.5


def test_intervals_resample_conversations() -> None:
    """Every row four times over: as pairs of their own conversations they would look like evidence."""
    rows = np.repeat(np.random.default_rng(4).normal(0.3, 1, (60, 1)), 4, axis=0)
    together = probe(rows, np.repeat(np.arange(60), 4))
    apart = probe(rows)
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(2, abs=0.5)


def test_nineteen_in_twenty_intervals_hold_the_truth_where_there_is_nothing_to_find() -> None:
    """Without the correction for shared training pairs it would be four in five."""
    covered = []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        found = probe(generator.normal(size=(120, 30)), np.arange(120) // 2, seed)
        covered.append(found.low <= 0.5 <= found.high)
    assert sum(covered) >= 90


def test_more_folds_and_another_confidence_are_honoured() -> None:
    rows = np.random.default_rng(5).normal(0.3, 1, (100, 3))
    wide, narrow = (
        cross_validate(
            rows,
            np.arange(100),
            AuditConfig(folds=10, bootstrap_samples=200, confidence=confidence),
            0,
            strength=0.1,
            standardise=True,
        )
        for confidence in (0.99, 0.8)
    )
    assert wide.auc == narrow.auc
    assert wide.low < narrow.low < narrow.high < wide.high
