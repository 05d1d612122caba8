"""Agreement with a judge: by hand, and what it does not depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.evaluate.agreement import OUTCOMES, agreement, agreement_by_turn
from music_ray.evaluate.stats import Resampling

QUICK = Resampling(samples=200, confidence=0.9, seed=3)
FIRST, SECOND, EQUAL, NONE = (1.0, 0.0), (0.0, 1.0), (2.0, 2.0), (float("nan"), 0.0)


def agree(rows):
    scores = np.array([row[0] for row in rows])
    lengths = np.array([(7, 5)] * len(rows))
    return agreement(scores, np.array([row[1] for row in rows]), np.arange(len(rows)), lengths, QUICK)


def test_by_hand() -> None:
    found = agree(
        [
            (FIRST, "chosen"), (FIRST, "chosen"), (SECOND, "rejected"), (SECOND, "chosen"),
            (EQUAL, "rejected"), (FIRST, "tie"), (SECOND, "invalid"), (NONE, "chosen"),
        ]
    )  # fmt: skip
    counts = [found[f"judge_{name}"] for name in OUTCOMES]
    assert counts == [4, 2, 1, 1] and (found["num_verdicts"], found["num_decided"]) == (8, 6)
    assert found["accuracy"] == pytest.approx(3 / 6)  # a tie and a missing score agree with no preference
    # Kappa on the seven pairs with a verdict, each in both orders: 14 rows, 6 of which agree. The model says
    # 1, −1, 0 and nothing in 5, 5, 2 and 2 of them, the judge in 6, 6, 2 and 0: by chance
    # (5·6 + 5·6 + 2·2) / 196 = 16/49. (21/49 − 16/49) / (1 − 16/49) = 5/33.
    assert found["kappa"] == pytest.approx(5 / 33)


def test_what_a_model_cannot_read_is_no_agreement() -> None:
    found = agree([(FIRST, "chosen")] * 10 + [(NONE, "chosen")] * 90)
    assert found["accuracy"] == pytest.approx(0.1)
    # 20 of 200 rows agree; by chance (10·100 + 10·100) / 200² = 1/20: (1/10 − 1/20) / (1 − 1/20) = 1/19.
    assert found["kappa"] == pytest.approx(1 / 19)
    assert agree([(NONE, "chosen"), (NONE, "tie")])["kappa"] == 0.0


def test_a_set_whose_chosen_side_the_judge_always_prefers_has_a_kappa() -> None:
    found = agree([(FIRST, "chosen")] * 3 + [(SECOND, "chosen")])
    assert found["accuracy"] == 0.75
    assert found["kappa"] == pytest.approx(2 * 0.75 - 1)  # both sides are as often the better one


def test_agreeing_always_and_never() -> None:
    assert agree([(FIRST, "chosen"), (SECOND, "rejected")])["kappa"] == pytest.approx(1.0)
    assert agree([(SECOND, "chosen"), (FIRST, "rejected")])["kappa"] == pytest.approx(-1.0)


def test_without_a_preference_there_is_nothing_to_agree_with() -> None:
    found = agree([(FIRST, "tie"), (FIRST, "invalid")])
    assert (found["accuracy"], found["accuracy_low"], found["num_decided"]) == (None, None, 0)
    assert agree([(FIRST, "invalid")])["kappa"] is None
    assert agree([(EQUAL, "tie")])["kappa"] is None


ORDERS = {"chosen": "rejected", "rejected": "chosen", "tie": "tie", "invalid": "invalid"}


@given(
    st.lists(
        st.tuples(st.sampled_from([FIRST, SECOND, EQUAL, NONE]), st.sampled_from(OUTCOMES), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_which_side_is_called_chosen_changes_nothing(rows) -> None:
    found = agree([(score, outcome) for score, outcome, _ in rows])
    renamed = agree(
        [(score[::-1], ORDERS[outcome]) if swap else (score, outcome) for score, outcome, swap in rows]
    )
    assert renamed["accuracy"] == found["accuracy"]
    assert renamed["kappa"] == (found["kappa"] if found["kappa"] is None else pytest.approx(found["kappa"]))


def test_length_stands_beside_the_agreement_whichever_side_is_called_chosen() -> None:
    scores, outcomes = (
        np.array([FIRST, SECOND, FIRST, SECOND]),
        np.array(["chosen", "rejected", "chosen", "tie"]),
    )
    longer_is_better = np.where(scores > 0, 9, 4)
    found = agreement(scores, outcomes, np.array([0, 0, 1, 2]), longer_is_better, QUICK)
    assert found["margin_length"] == pytest.approx(1.0) and found["num_contexts"] == 2
    shorter = agreement(scores, outcomes, np.array([0, 0, 1, 2]), -longer_is_better, QUICK)
    assert shorter["margin_length"] == pytest.approx(-1.0)
    assert agree([(FIRST, "invalid")])["margin_length"] is None


def test_turn_by_turn() -> None:
    scores = np.array([FIRST, SECOND, FIRST, FIRST])
    found = agreement_by_turn(
        scores,
        np.array(["chosen", "chosen", "chosen", "rejected"]),
        np.array([1, 2, 10, 2]),
        np.array([0, 0, 0, 1]),
        np.array([(7, 5)] * 4),
        QUICK,
    )
    assert {turn: one["accuracy"] for turn, one in found.items()} == {"1": 1.0, "2": 0.0, "10": 1.0}
    assert list(found) == ["1", "2", "10"]
