"""How far judges can be trusted: position, repetition, and each other."""

import pytest

from music_ray.evaluate.best_of_n.questions import repeat_id
from music_ray.evaluate.best_of_n.reliability import agreement, reliability
from music_ray.judge.verdict import Verdict

A, B, TIE, INVALID = Verdict


class Said:
    """Verdicts by id: (first, second), 'error', or nothing."""

    def __init__(self, said):
        self._said = said

    def of(self, one):
        return self._said.get(one)

    def tokens_of(self, ids):
        return {"prompt": sum(one in self._said for one in ids)}


def test_position_and_orders() -> None:
    said = {
        1: (A, B),  # the same conversation in both orders
        2: (B, A),
        3: (A, A),  # the first place in both
        4: (A, TIE),
        5: (TIE, TIE),
        6: (A, INVALID),
        7: "error",
    }
    found = reliability(Said(said), list(said), [])
    assert found["num_questions"] == 7
    assert found["verdicts"] == {"A": 1, "B": 1, "tie": 3, "invalid": 1, "error": 1}
    assert found["first_position_wins"] == pytest.approx(5 / 7), "what has no answer in an order is left out"
    assert found["agreement_in_both_orders"] == pytest.approx(3 / 5)
    assert (found["num_repeated"], found["agreement_on_repetition"]) == (0, None)
    assert found["why_not_repeated"] == "no question has a verdict each time"


def test_a_judge_that_always_takes_the_first_has_no_winners() -> None:
    found = reliability(Said(dict.fromkeys(range(4), (A, A))), range(4), [])
    assert (found["first_position_wins"], found["agreement_in_both_orders"]) == (1.0, 0.0)
    assert found["verdicts"]["tie"] == 4


def test_repetition_counts_where_both_times_have_a_verdict() -> None:
    said = {
        1: (A, B), repeat_id(1): (A, B),
        2: (A, B), repeat_id(2): (B, A),
        3: (A, A), repeat_id(3): (TIE, TIE),
        4: (A, B), repeat_id(4): (A, INVALID),
        5: (A, B), repeat_id(5): "error",
    }  # fmt: skip
    found = reliability(Said(said), range(1, 6), range(1, 6))
    assert found["num_repeated"] == 3 and found["agreement_on_repetition"] == pytest.approx(2 / 3)
    assert found["why_not_repeated"] == "" and found["tokens"] == {"prompt": 10}


def test_tokens_are_those_of_the_questions_and_their_repetitions() -> None:
    said = {1: (A, B), repeat_id(1): (A, B), 2: (A, B), repeat_id(2): (A, B), 3: (A, B)}
    assert reliability(Said(said), [1, 2], [2])["tokens"] == {"prompt": 3}
    greedy = reliability(Said(said), [1, 2], [], "it is greedy")
    assert (greedy["tokens"], greedy["why_not_repeated"]) == ({"prompt": 2}, "it is greedy")


def test_two_judges() -> None:
    one = Said({1: (A, B), 2: (A, B), 3: (TIE, TIE), 4: (A, B), 5: "error", 6: (B, A)})
    other = Said({1: (A, B), 2: (B, A), 3: (A, A), 4: (INVALID, B), 5: (A, B), 6: (TIE, TIE)})
    found = agreement(one, other, range(1, 7))
    assert found == {"num_questions": 4, "share": 0.5, "share_of_winners": 0.5}
    assert agreement(one, other, []) == {"num_questions": 0, "share": None, "share_of_winners": None}
