"""Two models on the same pairs: by hand, and signs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.evaluate.accuracy import PairFacts
from music_ray.evaluate.comparison import compare, compare_by
from music_ray.evaluate.stats import Resampling

QUICK = Resampling(samples=200, confidence=0.9, seed=3)
RIGHT, WRONG, TIE = (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)


def table(*rows):
    return np.array(rows)


def test_by_hand() -> None:
    # Pairs: only the first right, only the first (the second ties), both, only the second, both wrong.
    first = table(RIGHT, RIGHT, RIGHT, WRONG, TIE)
    second = table(WRONG, TIE, RIGHT, RIGHT, WRONG)
    found = compare(first, second, np.array([1, 1, 2, 3, 4]), QUICK)
    assert found["difference"] == pytest.approx((3 - 2) / 5)
    assert (found["only_first_right"], found["only_second_right"]) == (2, 1)
    assert (found["num_pairs"], found["num_contexts"]) == (5, 4)
    # Contexts sum to 2, 0, −1, 0: of the totals ±1, ±3 all are at least 1 away from 0.
    assert found["p_value"] == 1.0
    assert found["mcnemar_p_value"] == 1.0


def test_contexts_are_what_counts() -> None:
    first, second = table(*[RIGHT] * 8), table(*[WRONG] * 8)
    assert compare(first, second, np.arange(8), QUICK)["p_value"] == pytest.approx(2 / 2**8)
    two = compare(first, second, np.array([0] * 4 + [1] * 4), QUICK)
    assert two["p_value"] == pytest.approx(0.5)
    assert two["mcnemar_p_value"] == pytest.approx(2 / 2**8)  # which takes the pairs as independent


rows = st.lists(
    st.tuples(st.sampled_from([RIGHT, WRONG, TIE]), st.sampled_from([RIGHT, WRONG, TIE]), st.integers(0, 4)),
    min_size=1,
    max_size=20,
)


@given(rows)
def test_swapping_the_models_flips_the_sign(drawn) -> None:
    first, second = table(*(row[0] for row in drawn)), table(*(row[1] for row in drawn))
    contexts = np.array([row[2] for row in drawn])
    one, other = compare(first, second, contexts, QUICK), compare(second, first, contexts, QUICK)
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["difference_low"] == pytest.approx(-other["difference_high"])
    assert one["difference_high"] == pytest.approx(-other["difference_low"])
    assert one["p_value"] == pytest.approx(other["p_value"])
    assert one["only_first_right"] == other["only_second_right"]


@given(rows)
def test_a_model_does_not_differ_from_itself(drawn) -> None:
    scores = table(*(row[0] for row in drawn))
    found = compare(scores, scores, np.array([row[2] for row in drawn]), QUICK)
    assert found["difference"] == found["difference_low"] == found["difference_high"] == 0.0
    assert found["p_value"] == found["mcnemar_p_value"] == 1.0


def test_breakdowns_are_those_of_the_accuracy() -> None:
    facts = PairFacts(np.array(["x", "y"]), np.array([1, 2]), np.array([1, 1]), np.array([5, 6]))
    found = compare_by(table(RIGHT, WRONG), table(WRONG, WRONG), facts, QUICK)
    assert {name: one["difference"] for name, one in found["by_source"].items()} == {"x": 1.0, "y": 0.0}
    assert found["overall"]["difference"] == found["by_branch_turn"]["1"]["difference"] == 0.5
    assert set(found["by_num_turns"]) == {"1", "2"}


def test_other_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="1 pairs of the first model, 2 of the second"):
        compare(table(RIGHT), table(RIGHT, RIGHT), np.array([1]), QUICK)
