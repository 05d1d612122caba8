"""Every mistake is judged wrong at its turn, and nothing else becomes wrong by it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.miniature.check import examine, wrong_turns
from music_ray.miniature.language import LIST_OPERATIONS, tokens
from music_ray.miniature.mistakes import MISTAKES, foreign_reply, mistaken, modify_instruction
from music_ray.miniature.place import reply_at, spoil
from music_ray.miniature.reading import parse, replace_request
from music_ray.miniature.world import WORLD, conversation, read_letters

SEEDS = st.integers(0, 2**62)


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 5), st.data())
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_wrong_at_its_turn_and_nowhere_else(name, seed, num_turns, data):
    turn = data.draw(st.integers(1, num_turns))
    messages = conversation(seed, num_turns)
    reply = mistaken(name, messages, turn, random.Random(seed))
    assert reply == mistaken(name, messages, turn, random.Random(seed))
    if reply is None:
        return
    spoiled = spoil(messages, turn, reply)
    assert wrong_turns(spoiled) == [turn]
    assert wrong_turns(messages) == []
    at = reply_at(turn)
    assert spoiled[:at] == messages[:at]
    assert spoiled[at]["content"] == reply
    assert spoiled[::2] == messages[::2]


@given(SEEDS, st.integers(1, 4), st.sampled_from(sorted(MISTAKES)))
def test_a_wrong_reply_can_not_be_seen_without_its_request(seed, turn, name):
    messages = conversation(seed, turn)
    reply = mistaken(name, messages, turn, random.Random(seed))
    if reply is None:
        return
    place = examine(messages)[-1]
    letters = read_letters(reply)
    assert len(letters) <= WORLD.max_letters
    assert letters or any(token.isdigit() for token in tokens(reply))
    assert not letters or letters not in (place.expectation.x, place.expectation.y)
    if name != "contrast" and place.ask.instruction.operation in LIST_OPERATIONS:
        assert len(letters) >= 2


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_occurs(name):
    # A contradiction needs two choices among the same letters, which are asked for in few conversations.
    least = 5 if name == "self_contradiction" else 200
    found = sum(
        mistaken(name, conversation(seed, 4), turn, random.Random(seed)) is not None
        for seed in range(400)
        for turn in (2, 4)
    )
    assert found >= least


@given(SEEDS, st.integers(1, 4), st.data())
def test_a_modified_instruction_is_one_that_could_have_been_asked(seed, num_turns, data):
    turn = data.draw(st.integers(1, num_turns))
    messages = conversation(seed, num_turns)
    modified = modify_instruction(messages, turn, random.Random(seed))
    if modified is None:
        return
    assert parse(modified.text).instruction == modified.instruction
    asked = [message.copy() for message in messages[: reply_at(turn)]]
    asked[-1]["content"] = replace_request(asked[-1]["content"], modified.text)
    answered = [*asked, {"role": "assistant", "content": modified.reply}]
    assert wrong_turns(answered) == []
    assert wrong_turns(spoil(messages, turn, modified.reply)) == [turn]


def example(*messages):
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(messages)]


@pytest.mark.parametrize(
    ("name", "messages", "possible"),
    [
        ("dropped_item", example("Reverse d b c.", "c b d"), {"b d", "c d", "c b"}),
        (
            "duplicated_item",
            example("Sort d b.", "b d"),
            {"b b d", "b d d", "d b d", "b d b"},
        ),
        ("swapped_neighbours", example("Reverse d b c.", "c b d"), {"b c d", "c d b"}),
        ("off_by_one", example("Count the letters of d b c.", "3"), {"2", "4"}),
        ("forgotten_constraint", example("Sort d b. Always use upper case.", "B D"), {"b d"}),
        ("forgotten_constraint", example("Reverse d b c. Never use the letter b.", "c d"), {"c b d"}),
        ("forgotten_constraint", example("Reverse d b c.", "c b d"), {None}),
        ("unasked_constraint", example("Reverse d b c.", "c b d"), {"C B D", "c b d!"}),
        ("unasked_constraint", example("Sort d b. Always use upper case.", "B D"), {"B D!"}),
        ("stale_reference", example("Reverse d b c.", "c b d", "Sort it.", "b c d"), {None}),
        ("stale_reference", example("Sort d b a.", "a b d", "Take the first 2 of it.", "a b"), {"d b"}),
        ("self_contradiction", example("Which letter of d b do you like best?", "b"), {None}),
    ],
)  # fmt: skip
def test_mistakes_are_what_their_names_say(name, messages, possible):
    turn = len(messages) // 2
    found = {mistaken(name, messages, turn, random.Random(seed)) for seed in range(100)}
    assert found - {None} == possible - {None}
    assert None not in possible or None in found


def test_no_mistake_where_nothing_would_be_right():
    messages = example("What is the weather?", "a b")
    assert {mistaken(name, messages, 1, random.Random(1)) for name in MISTAKES} == {None}
    assert mistaken("contrast", messages, 2, random.Random(1)) is None
    assert modify_instruction(messages, 1, random.Random(1)) is None
    assert foreign_reply(messages, 1, random.Random(1)) is None


@given(SEEDS, st.integers(1, 4))
def test_a_foreign_reply_is_wrong(seed, turn):
    messages = conversation(seed, turn)
    reply = foreign_reply(messages, turn, random.Random(seed))
    assert reply is None or wrong_turns(spoil(messages, turn, reply)) == [turn]
