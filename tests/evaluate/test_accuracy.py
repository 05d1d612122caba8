"""Pairwise accuracy: by hand, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.evaluate.accuracy import PairFacts, accuracy, accuracy_by, is_right, is_tie, length_correlation
from music_ray.evaluate.stats import Resampling

QUICK = Resampling(samples=200, confidence=0.9, seed=3)
NAN, INF = float("nan"), float("inf")
# Right, wrong, tie, a side without a score, a score that is none.
SCORES = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0], [NAN, 0.0], [INF, 0.0], [3.0, -1.0]])
FACTS = PairFacts(
    sources=np.array(["x", "x", "y", "y", "y", "x"]),
    num_turns=np.array([1, 2, 2, 3, 10, 2]),
    branch_turns=np.array([1, 1, 2, 3, 4, 2]),
    contexts=np.array([7, 7, 8, 9, 10, 11]),
)
LENGTHS = np.array([[5, 4], [3, 9], [2, 2], [8, 1], [4, 4], [9, 2]])

scores_of_pairs = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=25
)


def test_ties_and_missing_scores_are_wrong_and_counted() -> None:
    found = accuracy(SCORES, FACTS.contexts, LENGTHS, QUICK)
    assert found["accuracy"] == pytest.approx(2 / 6)
    assert (found["ties"], found["unscored"]) == (1, 2)
    assert (found["num_pairs"], found["num_contexts"]) == (6, 5)
    assert 0.0 <= found["accuracy_low"] < 2 / 6 < found["accuracy_high"] <= 1.0


def test_every_breakdown_divides_all_pairs() -> None:
    found = accuracy_by(SCORES, FACTS, LENGTHS, QUICK)
    assert list(found) == ["overall", "by_source", "by_num_turns", "by_branch_turn"]
    assert {name: one["accuracy"] for name, one in found["by_source"].items()} == {"x": 2 / 3, "y": 0.0}
    assert {name: one["num_pairs"] for name, one in found["by_branch_turn"].items()} == {
        "1": 2, "2": 2, "3": 1, "4": 1,
    }  # fmt: skip
    assert list(found["by_num_turns"]) == ["1", "2", "3", "10"]  # by number, not by text
    assert found["by_num_turns"]["2"]["accuracy"] == pytest.approx(1 / 3)
    for cut in ("by_source", "by_num_turns", "by_branch_turn"):
        assert sum(one["num_pairs"] for one in found[cut].values()) == 6


def test_no_pairs_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no values to average"):
        accuracy(np.empty((0, 2)), np.empty(0), np.empty((0, 2)), QUICK)


@given(scores_of_pairs, st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_nothing(rows, random) -> None:
    def found(order):
        table = np.array([rows[at] for at in order], dtype=float)
        return accuracy(table[:, :2], table[:, 2].astype(int), table[:, ::-1][:, :2], QUICK)

    before = found(range(len(rows)))
    order = random.sample(range(len(rows)), len(rows))
    for name, value in found(order).items():
        assert value == (value if value is None else pytest.approx(before[name])), name
        assert (value is None) == (before[name] is None)


@given(scores_of_pairs)
def test_swapping_the_sides_swaps_right_and_wrong_and_leaves_ties(rows) -> None:
    scores = np.array(rows, dtype=float)[:, :2]
    right, wrong = is_right(scores), is_right(scores[:, ::-1])
    assert (is_tie(scores) == is_tie(scores[:, ::-1])).all()
    assert (right.astype(int) + wrong + is_tie(scores) == 1).all()


def test_length_correlations_by_hand() -> None:
    # The longer, the higher, over conversations and within pairs.
    scores = np.array([[4.0, 1.0], [5.0, 3.0], [6.0, 2.0]])
    assert length_correlation(scores, np.array([[40, 10], [50, 30], [60, 20]])) == {
        "score_length": pytest.approx(1.0),
        "margin_length": pytest.approx(1.0),  # margins 3, 2, 4 and differences 30, 20, 40
    }
    # Long contexts score higher, but within a pair the shorter reply does.
    drift = np.array([[1.2, 1.1], [2.4, 2.2], [3.6, 3.3]])
    found = length_correlation(drift, np.array([[10, 11], [20, 22], [30, 33]]))
    assert found["score_length"] > 0.8 and found["margin_length"] == pytest.approx(-1.0)


def test_a_correlation_that_is_not_defined_is_none() -> None:
    same = {"score_length": None, "margin_length": None}
    assert length_correlation(np.ones((4, 2)), np.arange(8).reshape(4, 2)) == same
    assert length_correlation(np.array([[NAN, 1.0]] * 5), np.ones((5, 2))) == same
    assert length_correlation(np.array([[1.0, 2.0]]), np.array([[1, 2]])) == same
