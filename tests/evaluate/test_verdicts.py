"""A judge's recorded verdicts: reading them, and which pair each is on."""

from pathlib import Path

import pytest

from music_ray.errors import InputError
from music_ray.evaluate.pair_sets import EvalPair, PairSet
from music_ray.evaluate.verdicts import Judged, check_apart, match, read_verdicts, up_to_turn
from music_ray.judge.rows import pair_id
from tests.evaluate.conftest import messages, write_jsonl

GOOD, BAD = messages("q", "good", "more", "fine"), messages("q", "bad", "more", "awful")
PAIRS = PairSet(
    "set",
    "set.jsonl",
    [EvalPair("a", "s", "", GOOD, BAD), EvalPair("b", "s", "", messages("x", "y"), messages("x", "z"))],
)


def refusal(path: str) -> str:
    with pytest.raises(InputError) as caught:
        read_verdicts(path)
    return str(caught.value).replace(path, "FILE")


def test_verdicts_are_on_a_pair_s_id_or_on_its_conversations(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "v.jsonl",
        {"id": "b", "outcome": "tie"},
        {"id": pair_id(GOOD, BAD), "outcome": "chosen", "status": "ok"},
        {"id": pair_id(GOOD, BAD), "outcome": "rejected", "status": "ok"},  # said once more: the first counts
        {"id": "c", "outcome": "invalid"},
        {"id": "b", "outcome": "", "status": "error"},
    )
    found = read_verdicts(path)
    assert found.unanswered == 1 and len(found.outcomes) == 3
    assert found.conflicting == 1
    assert match(found, PAIRS) == [Judged(0, None, "chosen"), Judged(1, None, "tie")]


def test_verdicts_that_contradict_the_first_are_counted(tmp_path: Path) -> None:
    said = [("a", None, "tie"), ("a", None, "tie"), ("a", 1, "chosen"), ("a", None, "chosen")]
    said += [("a", 1, "rejected"), ("a", 1, "tie"), ("b", None, "invalid"), ("b", None, "chosen")]
    rows = [{"id": one, "turn": turn, "outcome": outcome} for one, turn, outcome in said]
    found = read_verdicts(write_jsonl(tmp_path / "v.jsonl", *rows))
    assert found.conflicting == 4, "the same once more is no conflict, and turns are apart"
    assert found.outcomes == {("a", None): "tie", ("a", 1): "chosen", ("b", None): "invalid"}


def test_verdicts_on_turns(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "v.jsonl",
        {"id": "a", "turn": 2, "outcome": "rejected"},
        {"id": "a", "turn": 1, "outcome": "chosen"},
        {"id": "a", "turn": None, "outcome": "chosen"},
    )
    assert match(read_verdicts(path), PAIRS) == [
        Judged(0, None, "chosen"),
        Judged(0, 1, "chosen"),
        Judged(0, 2, "rejected"),
    ]
    assert up_to_turn(GOOD, 1) == messages("q", "good") and up_to_turn(GOOD, 2) == GOOD


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"id": "a", "outcome": "better"},
            "FILE row 1 has the outcome 'better': it must be one of chosen, reje",
        ),
        ({"id": "a"}, "FILE row 1 has the outcome None"),
        ({"outcome": "tie"}, "FILE row 1 has no id"),
        ({"id": "a", "outcome": "tie", "turn": 0}, "FILE row 1 has the turn 0: turns are counted from 1"),
        (b"{", "FILE row 1 can't be read"),
        ({"id": "a", "outcome": "", "status": "error"}, "FILE holds no verdict"),
    ],
)
def test_wrong_rows_are_refused(row, message, tmp_path: Path) -> None:
    assert refusal(write_jsonl(tmp_path / "v.jsonl", row)).startswith(message)


def test_a_turn_that_a_pair_has_not_is_refused(tmp_path: Path) -> None:
    found = read_verdicts(write_jsonl(tmp_path / "v.jsonl", {"id": "b", "turn": 2, "outcome": "tie"}))
    with pytest.raises(InputError, match=r"a verdict is on turn 2 of pair b of set\.jsonl, which has 1"):
        match(found, PAIRS)


def test_an_id_that_two_pairs_share_is_refused(tmp_path: Path) -> None:
    found = read_verdicts(write_jsonl(tmp_path / "v.jsonl", {"id": "a", "outcome": "tie"}))
    twice = PairSet("set", "set.jsonl", [PAIRS.pairs[0], PAIRS.pairs[0]])
    with pytest.raises(InputError, match=r"two pairs of set\.jsonl have the id a, which a verdict names"):
        match(found, twice)


def test_an_id_of_different_pairs_in_two_sets_is_refused(tmp_path: Path) -> None:
    found = read_verdicts(write_jsonl(tmp_path / "v.jsonl", {"id": "a", "outcome": "tie"}))
    other = PairSet("other", "other.jsonl", [EvalPair("a", "s", "", messages("x", "y"), messages("x", "z"))])
    with pytest.raises(InputError, match=r"set\.jsonl and other\.jsonl both have a pair with the id a, "):
        check_apart(found, [PAIRS, other])
    same = PairSet("same", "same.jsonl", [PAIRS.pairs[0]])
    unnamed = PairSet("x", "x.jsonl", [EvalPair("b", "s", "", GOOD, BAD)])
    check_apart(found, [PAIRS, same, unnamed])
