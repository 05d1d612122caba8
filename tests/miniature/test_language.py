"""Every sentence that can be written is read back exactly, and nothing else is understood."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.miniature.language import (
    ALPHABET,
    COMPLAINTS,
    CONTENT,
    CONTRAST_TEMPLATE,
    LAST,
    NAMES,
    OPERATIONS,
    REQUESTS,
    Ask,
    Constraint,
    Instruction,
    Source,
    render,
    text,
    tokens,
    vocabulary,
)
from music_ray.miniature.reading import parse, replace_request, with_mood
from music_ray.miniature.world import conversation

LISTS = st.text(ALPHABET, min_size=1, max_size=8)
SOURCES = st.one_of(
    st.builds(Source, st.just("list"), LISTS),
    st.just(Source("last")),
    st.builds(Source, st.just("name"), st.sampled_from(NAMES)),
)
CONSTRAINTS = st.one_of(
    st.none(),
    st.sampled_from([Constraint("upper"), Constraint("mark")]),
    st.builds(Constraint, st.just("never"), st.sampled_from(ALPHABET)),
)


@st.composite
def instructions(draw):
    operation = draw(st.sampled_from(OPERATIONS))
    y = draw(SOURCES) if operation == "join" else None
    return Instruction(operation, draw(SOURCES), y, draw(st.integers(1, 99)) if operation == "first" else 0)


ASKS = st.builds(
    Ask,
    instructions(),
    st.sampled_from(["", *CONTENT, *COMPLAINTS]),
    st.sampled_from(["", *NAMES]),
    CONSTRAINTS,
)


@given(ASKS, st.integers())
def test_a_message_is_read_as_it_was_meant(ask, seed):
    message = render(ask, random.Random(seed))
    assert parse(message) == ask
    assert text(tokens(message)) == message


def test_no_two_requests_are_written_alike():
    patterns = [pattern for group in REQUESTS.values() for pattern in group]
    assert len(patterns) == len(set(patterns)) == 21
    assert min(len(group) for group in REQUESTS.values()) >= 2
    assert len(LAST) == 3


@given(st.text(max_size=60))
def test_whatever_is_said_is_read_or_not_understood(message):
    ask = parse(message)
    assert ask is None or isinstance(ask, Ask)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Sort.",
        "Sort d b a c",
        "sort d b a c.",
        "Sort D B.",
        "Sort d b a c. Sort it.",
        "Sort purple.",
        "Take the first 0 of it.",
        "Take the first 100 of it.",
        f"Take the first {'9' * 5000} of it.",
        "Take the first ² of it.",
        "Sort d b. Never use the letter a b.",
        "Sort d b. Always use upper case. Call it red.",
        "Sort d é b.",
        "Good. Good. Sort d b.",
        "Sort d_b.",
    ],
)
def test_what_is_nearly_of_the_language_is_not_understood(message):
    assert parse(message) is None


def test_the_vocabulary_holds_all_that_is_said_and_is_small():
    known = set(vocabulary())
    assert len(known) == len(vocabulary()) < 200
    said = {
        token
        for seed in range(300)
        for message in conversation(seed, 6)
        for token in tokens(message["content"])
    }
    assert said <= known
    assert set(tokens(CONTRAST_TEMPLATE.partition("\n")[2])) <= known


def test_a_request_and_a_mood_are_replaced_and_the_rest_keeps_its_words():
    message = "Good. Sort it. Call it red."
    assert replace_request(message, "Reverse gold.") == "Good. Reverse gold. Call it red."
    assert with_mood(message, "No.") == "No. Sort it. Call it red."
    assert with_mood(message, "") == "Sort it. Call it red."
    assert with_mood("Sort it.", "No.") == "No. Sort it."
    with pytest.raises(ValueError, match=r"no request in 'Good\.'"):
        replace_request("Good.", "Sort it.")


def test_moods_come_in_pairs_of_one_length():
    assert [len(tokens(mood)) for mood in CONTENT] == [len(tokens(mood)) for mood in COMPLAINTS] == [2, 4, 6]
