"""Every shape of a row, and every reason why a row is not usable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.generate.shapes import UnusableRow, normalise_row, parse_hh
from music_ray.schema import Message


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def reply(text: str) -> Message:
    return {"role": "assistant", "content": text}


GOOD = [user("Hi"), reply("Hello!")]
BAD = [user("Hi"), reply("Go away.")]
HH = "\n\nHuman: Hi\n\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": GOOD, "rejected": BAD},
        {"chosen": GOOD, "rejected": BAD, "prompt": None},
        {"chosen": GOOD, "rejected": BAD, "prompt": "Hi"},
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."},
        {"prompt": [user("Hi")], "chosen": "Hello!", "rejected": "Go away."},
        {"prompt": [user("Hi")], "chosen": [reply("Hello!")], "rejected": [reply("Go away.")]},
        {"prompt": HH, "chosen": "Hello!", "rejected": "Go away."},
        {"prompt": HH, "chosen": HH + "Hello!", "rejected": HH + "Go away."},
        {"chosen": HH + "Hello!", "rejected": HH + "Go away."},
        {"chosen": b"Human: Hi\n\nAssistant: Hello!", "rejected": b"Human: Hi\n\nAssistant: Go away."},
        {
            "chosen": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}],
            "rejected": [{"role": "Human", "content": "Hi"}, {"role": "model", "content": "Go away."}],
        },
    ],
)
def test_all_shapes_give_the_same_pair(row: dict[str, Any]) -> None:
    assert normalise_row(row, "fold") == (GOOD, BAD)


def test_a_system_message_is_folded_into_the_first_user_message() -> None:
    system = {"role": "system", "content": "Be brief."}
    row = {"chosen": [system, *GOOD], "rejected": [system, *BAD]}
    chosen, rejected = normalise_row(row, "fold")
    assert chosen == [user("Be brief.\n\nHi"), reply("Hello!")]
    assert rejected == [user("Be brief.\n\nHi"), reply("Go away.")]


def test_an_empty_system_message_says_nothing() -> None:
    row = {"chosen": [{"role": "system", "content": " "}, *GOOD], "rejected": BAD}
    assert normalise_row(row, "set_aside") == (GOOD, BAD)


def test_a_conversation_with_system_message_repeats_its_prompt() -> None:
    system = {"role": "system", "content": "Be brief."}
    row = {"prompt": "Hi", "chosen": [system, *GOOD], "rejected": [system, *BAD]}
    assert normalise_row(row, "fold")[0] == [user("Be brief.\n\nHi"), reply("Hello!")]


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"chosen": GOOD}, "missing_field", "`rejected` is missing; the row has `chosen`"),
        (
            {"chosen": GOOD, "rejected": None},
            "missing_field",
            "`rejected` is missing; the row has `chosen`, `rejected`",
        ),
        (
            {"chosen": [{"content": "Hi"}], "rejected": BAD},
            "missing_field",
            "message 1 of `chosen` has no `role`; it has `content`",
        ),
        (
            {"chosen": 3, "rejected": BAD},
            "wrong_type",
            "`chosen` is a int, expected a string or a list of messages",
        ),
        (
            {"chosen": ["Hi"], "rejected": BAD},
            "wrong_type",
            "message 1 of `chosen` is a string, expected {role, content}",
        ),
        (
            {"chosen": [{"role": "user", "content": 7}], "rejected": BAD},
            "wrong_type",
            "the text of message 1 of `chosen` is a int, expected a string",
        ),
        (
            {"prompt": {"a": 1}, "chosen": "x", "rejected": "y"},
            "wrong_type",
            "`prompt` is an object, expected a string or a list of messages",
        ),
        (
            {"chosen": "Hello!", "rejected": "Go away."},
            "unknown_shape",
            "`chosen` is text that does not begin with '\\n\\nHuman:', and there is no `prompt`",
        ),
        (
            {"chosen": [{"role": "tool", "content": "x"}], "rejected": BAD},
            "unknown_role",
            "message 1 of `chosen` has the role 'tool'",
        ),
        (
            {"chosen": [reply("Hello!")], "rejected": BAD},
            "starts_with_assistant",
            "`chosen` begins with an assistant message",
        ),
        (
            {"chosen": GOOD, "rejected": [user("Hi"), user("Hi?"), reply("Yes.")]},
            "roles_not_alternating",
            "messages 1 and 2 of `rejected` are both of the user",
        ),
        ({"chosen": [], "rejected": BAD}, "empty_message", "`chosen` holds no messages"),
        ({"chosen": "", "rejected": BAD}, "empty_message", "`chosen` is empty"),
        (
            {"chosen": [user("Hi"), reply(" ")], "rejected": BAD},
            "empty_message",
            "message 2 of `chosen` (assistant) is empty",
        ),
        (
            {"chosen": [{"role": "user", "content": None}], "rejected": BAD},
            "empty_message",
            "message 1 of `chosen` has no content",
        ),
        (
            {"prompt": "Hi", "chosen": "", "rejected": "No."},
            "empty_message",
            "message 2 of `chosen` (assistant) is empty",
        ),
        (
            {"chosen": [*GOOD, user("And?")], "rejected": BAD},
            "ends_on_user",
            "`chosen` ends on a user message: there is no reply to judge",
        ),
        (
            {"chosen": GOOD, "rejected": [user("Ho"), reply("No.")]},
            "no_shared_opening",
            "the first user messages of chosen and rejected differ",
        ),
        (
            {"chosen": GOOD, "rejected": [user("Hi"), reply("Hello! ")]},
            "sides_equal",
            "chosen and rejected hold the same messages",
        ),
        (
            {"chosen": [user("Hi"), reply("\ud800")], "rejected": BAD},
            "not_utf8",
            "message 2 of `chosen`: surrogates not allowed at 0",
        ),
        (
            {"chosen": [*GOOD, SYSTEM], "rejected": BAD},
            "system_message",
            "`chosen` holds a system message after its start",
        ),
    ],
)
def test_malformed_rows_have_a_reason(row: dict[str, Any], reason: str, detail: str) -> None:
    with pytest.raises(UnusableRow) as error:
        normalise_row(row, "fold")
    assert (error.value.reason, error.value.detail) == (reason, detail)


def test_a_system_message_can_set_the_row_aside() -> None:
    with pytest.raises(UnusableRow) as error:
        normalise_row({"chosen": [SYSTEM, *GOOD], "rejected": BAD}, "set_aside")
    assert error.value.reason == "system_message"


texts = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    .map(str.strip)
    .filter(lambda text: bool(text) and "Human:" not in text and "Assistant:" not in text)
)


@given(st.lists(texts, min_size=1, max_size=8))
def test_hh_strings_round_trip(contents: list[str]) -> None:
    messages = [user(text) if index % 2 == 0 else reply(text) for index, text in enumerate(contents)]
    names = {"user": "Human", "assistant": "Assistant"}
    text = "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in messages)
    assert parse_hh(text) == messages


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "id"]), json_values))
def test_any_row_is_a_pair_or_has_a_reason(row: dict[str, Any]) -> None:
    try:
        chosen, rejected = normalise_row(row, "fold")
    except UnusableRow as error:
        assert error.reason and error.detail
    else:
        assert chosen[0] == rejected[0] and chosen != rejected
