"""What is right, and conversations in which everything is."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.miniature.check import examine, wrong_turns
from music_ray.miniature.language import OPERATIONS, Constraint, Instruction, Source
from music_ray.miniature.parts import PARTS, seeds, split_of_part
from music_ray.miniature.place import is_sound
from music_ray.miniature.world import WORLD, apply, conversation, read_letters, split_of, written

SEEDS = st.integers(0, 2**62)


@pytest.mark.parametrize(
    ("operation", "x", "y", "result"),
    [
        ("sort", "dbac", "", "abcd"),
        ("reverse", "dbac", "", "cabd"),
        ("double", "db", "", "ddbb"),
        ("drop_vowels", "aebic", "", "bc"),
        ("drop_vowels", "ae", "", ""),
        ("shift", "aij", "", "bja"),
        ("first", "dbac", "", "db"),
        ("join", "db", "ac", "dbac"),
        ("count", "dbac", "", 4),
    ],
)
def test_operations(operation, x, y, result):
    assert apply(Instruction(operation, Source("last"), k=2), x, y) == result


@pytest.mark.parametrize(
    ("result", "constraint", "reply"),
    [
        ("dbac", None, "d b a c"),
        ("dbac", Constraint("upper"), "D B A C"),
        ("dbac", Constraint("mark"), "d b a c!"),
        ("dbac", Constraint("never", "a"), "d b c"),
        ("aa", Constraint("never", "a"), "none"),
        ("", Constraint("upper"), "none"),
        (4, Constraint("mark"), "4!"),
        (4, Constraint("upper"), "4"),
    ],
)
def test_replies(result, constraint, reply):
    assert written(result, constraint) == reply


@pytest.mark.parametrize(
    ("reply", "letters"),
    [("D b!", "db"), ("none", ""), ("7", ""), ("the letters are d and B.", "db"), ("", "")],
)
def test_letters_are_read_from_whatever_is_said(reply, letters):
    assert read_letters(reply) == letters


@given(SEEDS, st.integers(1, 8), st.sampled_from(["train", "dev", "suites"]))
def test_every_reply_of_a_generated_conversation_is_right(seed, num_turns, split):
    messages = conversation(seed, num_turns, split=split)
    turns = examine(messages)
    assert len(turns) == num_turns
    assert wrong_turns(messages) == []
    assert is_sound(messages)
    given_lists = [
        source.value
        for turn in turns
        for source in (turn.ask.instruction.x, turn.ask.instruction.y)
        if source is not None and source.kind == "list"
    ]
    assert {split_of(letters) for letters in given_lists} == {split}


def test_most_follow_ups_take_up_an_earlier_reply():
    asks = [turn.ask for seed in range(500) for turn in examine(conversation(seed, 4))[1:]]
    earlier = ("last", "name")
    takes_up = [
        ask.instruction.x.kind in earlier
        or (ask.instruction.y is not None and ask.instruction.y.kind in earlier)
        for ask in asks
    ]
    assert sum(takes_up) / len(asks) > 0.6
    operations = Counter(ask.instruction.operation for ask in asks)
    assert set(operations) == set(OPERATIONS)
    assert min(operations.values()) / len(asks) > 0.04


def test_a_world_can_be_made_easier():
    easy = replace(
        WORLD, list_operations=("sort", "reverse"), count_share=0.0, choice_share=0.0, constraint_share=0.0
    )
    asks = [turn.ask for seed in range(100) for turn in examine(conversation(seed, 3, world=easy))]
    assert {ask.instruction.operation for ask in asks} == {"sort", "reverse"}
    assert {ask.constraint for ask in asks} == {None}


def test_a_hundred_conversations_never_change():
    made = [conversation(seed, 1 + seed % 6) for seed in range(100)]
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    assert digest[:16] == "4c6c36843e1e9469"


def test_parts_share_no_seed():
    ranges = [seeds(part, run) for part in PARTS for run in (0, 1, 99)]
    ordered = sorted(ranges, key=lambda one: one.start)
    assert all(one.stop <= other.start for one, other in pairwise(ordered))
    assert {split_of_part(part) for part in ("corpus", "preferences", "prompts")} == {"train"}
    assert split_of_part("dev") == "dev"
    assert {split_of_part(part) for part in PARTS[4:]} == {"suites"}
    with pytest.raises(ValueError, match=r"no part 'S9' of the miniature: one of corpus, preferences"):
        seeds("S9")
    with pytest.raises(ValueError, match="run 100 of S1: a part has runs 0 to 99"):
        seeds("S1", 100)
