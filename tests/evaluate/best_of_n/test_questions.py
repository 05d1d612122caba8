"""Which pairs of picks a judge is asked about: equal ones never, others once, whoever picked them."""

from music_ray.config import BestOfNConfig
from music_ray.evaluate.best_of_n.questions import (
    Comparison,
    comparisons,
    pending,
    question,
    questions_of,
    repeat_id,
    repeated,
)
from music_ray.judge.rows import pair_id
from tests.evaluate.best_of_n.rules import talk

ONE, OTHER = talk("q", "one"), talk("q", "other")


def row_of(id_, picks):
    """picks: {(picker, selection, n): conversation}."""
    found = [
        {"picker": picker, "selection": selection, "n": n, "conversation": conversation}
        for (picker, selection, n), conversation in picks.items()
    ]
    return {"id": id_, "picks": found}


class NoVerdicts:
    """Verdicts of which there are some."""

    def __init__(self, **said):
        self._said = {int(name[1:]): one for name, one in said.items()}

    def of(self, one):
        return self._said.get(one)


def test_models_are_compared_with_each_other_and_with_chance() -> None:
    section = BestOfNConfig(n=[2, 4], selection=["turn"], turns=2)
    found = [(one.first, one.second, one.n) for one in comparisons(section, ["a", "b", "c"])]
    models = [("a", "b"), ("a", "c"), ("b", "c"), ("a", "random"), ("b", "random"), ("c", "random")]
    assert found == [(*pair, n) for pair in models for n in (2, 4)]
    without = section.model_copy(update={"against_random": False})
    assert [(one.first, one.second) for one in comparisons(without, ["a", "b"])] == [("a", "b")] * 2
    assert [one.second for one in comparisons(without, ["a"])] == ["random"] * 2, "one model has no other"


def test_equal_picks_are_no_question() -> None:
    assert question(ONE, [dict(one) for one in ONE]) is None


def test_a_question_is_the_same_in_both_orders() -> None:
    here, there = question(ONE, OTHER), question(OTHER, ONE)
    assert here is not None and there is not None
    assert here.id == there.id == pair_id(*here.conversations) and here.conversations == there.conversations
    assert here.swapped is not there.swapped
    assert here.conversations[here.swapped] == ONE


def test_each_question_is_asked_once_and_some_twice() -> None:
    picks = {
        ("random", "turn", 1): ONE,
        ("a", "turn", 2): ONE,
        ("b", "turn", 2): OTHER,
        ("a", "turn", 4): OTHER,
        ("b", "turn", 4): OTHER,
    }
    asked = comparisons(BestOfNConfig(n=[2, 4], turns=1), ["a", "b"])
    rows = [row_of(1, picks), row_of(2, picks)]
    assert [one.id for one in questions_of(rows[0], asked)] == [question(ONE, OTHER).id] * 4
    (only,) = list(pending(rows, asked, [], NoVerdicts(), retry_errors=False))
    assert only == {"id": question(ONE, OTHER).id, "seed_id": 1, "chosen": only["chosen"],
                    "rejected": only["rejected"]}  # fmt: skip
    assert {only["chosen"][1]["content"], only["rejected"][1]["content"]} == {"one", "other"}
    twice = list(pending(rows, asked, [only["id"]], NoVerdicts(), retry_errors=False))
    assert [one["id"] for one in twice] == [only["id"], repeat_id(only["id"])]
    assert twice[0]["chosen"] == twice[1]["chosen"]


def test_what_is_answered_is_not_asked_again_and_errors_are_on_demand() -> None:
    asked = [Comparison("a", "random", "turn", 2)]
    rows = [row_of(1, {("random", "turn", 1): ONE, ("a", "turn", 2): OTHER})]
    id_ = question(ONE, OTHER).id
    answered, failed = NoVerdicts(**{f"q{id_}": ("A", "B")}), NoVerdicts(**{f"q{id_}": "error"})
    assert list(pending(rows, asked, [], answered, retry_errors=True)) == []
    assert list(pending(rows, asked, [], failed, retry_errors=False)) == []
    assert [one["id"] for one in pending(rows, asked, [], failed, retry_errors=True)] == [id_]


def test_those_asked_twice_are_the_same_however_often_they_come_up() -> None:
    assert repeated([9, 3, 5, 3, 9, 7], 2) == [3, 5]
    assert repeated([1], 0) == [] and repeated([], 5) == []
    assert len({5, repeat_id(5), repeat_id(6)}) == 3
