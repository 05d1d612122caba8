"""The exact judge: right given what stands there, and never an exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.judge.verdict import Verdict
from music_ray.miniature.check import compare, examine, is_understood, num_right, wrong_turns


def talk(*messages):
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(messages)]


def test_a_follow_up_is_held_against_the_reply_that_was_given():
    asked = ("Sort d b a c. Call it red.", "Reverse it.", "Sort red.")
    wrong_first = talk(asked[0], "d c b a", asked[1], "a b c d", asked[2], "a b c d")
    assert wrong_turns(wrong_first) == [1]
    turns = examine(wrong_first)
    assert [turn.right_reply for turn in turns] == ["a b c d", "a b c d", "a b c d"]
    assert turns[1].expectation.x == "dcba"
    assert num_right(wrong_first) == 2


@pytest.mark.parametrize(
    ("replies", "wrong"),
    [
        (("D C", "C D", "2"), []),
        (("d c", "C D", "2"), [1]),
        (("D C", "c d", "2"), [2]),
        (("D C.", "C D", "2"), [1]),
        (("D  C\n", "C D", "2"), []),
        (("D C", "C D", "3"), [3]),
        (("D C", "C D", "two"), [3]),
        (("", "none", "0"), [1]),
        (("I don't know", "I", "1"), [1]),
    ],
)
def test_a_constraint_of_turn_1_counts_in_every_turn(replies, wrong):
    first, second, third = replies
    asked = ("Reverse c d. Always use upper case.", "Reverse it.", "How many letters are in it?")
    assert wrong_turns(talk(asked[0], first, asked[1], second, asked[2], third)) == wrong


def test_a_choice_may_not_contradict_an_earlier_one():
    ask, again = "Which letter of d b f do you like best?", "Which letter of f d b do you like best?"
    assert wrong_turns(talk(ask, "b", again, "b")) == []
    assert wrong_turns(talk(ask, "b", again, "d")) == [2]
    assert wrong_turns(talk(ask, "d", again, "d")) == []
    assert wrong_turns(talk(ask, "c", again, "d")) == [1]
    # g could not be chosen before; d could, and was not.
    third = "Which letter of d g b do you like best?"
    assert wrong_turns(talk(ask, "b", third, "g")) == []
    assert wrong_turns(talk(ask, "b", third, "d")) == [2]
    assert examine(talk(ask, "b", third, "d"))[1].expectation.options == ("g", "b")


@pytest.mark.parametrize(
    "messages",
    [
        talk("Sort it.", "a"),
        talk("Sort red.", "a"),
        talk("What is the weather?", "a b"),
        talk("Sort d b.", "b d", "Reverse it. Always use upper case.", "D B")[2:],
        [{"role": "assistant", "content": "a b"}],
        [{"role": "user", "content": "Sort d b."}, {"role": "assistant", "content": None}],
    ],
)
def test_what_has_no_right_reply_is_wrong(messages):
    assert wrong_turns(messages) == [1]


def test_a_constraint_after_the_first_turn_is_not_understood():
    messages = talk("Sort d b.", "b d", "Reverse it. Always use upper case.", "D B")
    assert wrong_turns(messages) == [2]
    assert not is_understood(messages)


def test_a_message_without_reply_is_no_turn():
    assert examine([]) == []
    assert num_right(talk("Sort d b.", "b d", "Reverse it.")) == 1


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text()})
)


@given(MESSAGES, MESSAGES)
def test_nothing_makes_it_fail(one, other):
    assert num_right(one) + len(wrong_turns(one)) == len(examine(one))
    assert compare(one, other) == compare(other, one).swapped


def test_the_better_conversation_wins():
    good = talk("Sort d b.", "b d", "Reverse it.", "d b")
    late = talk("Sort d b.", "b d", "Reverse it.", "b d")
    early = talk("Sort d b.", "d b", "Reverse it.", "b d")
    assert compare(good, late) is Verdict.A
    assert compare(early, good) is Verdict.B
    assert compare(early, late) is Verdict.TIE
