"""What a row of the input holds, or why there is nothing to score."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.score.conversations import InputRow, Unscorable, conversations, read_messages
from music_ray.score.rows import CONVERSATION_SCHEMA
from tests.reward.conftest import conversation

GOOD = conversation("a", "b")


def only(value: Any, columns: tuple[str, ...] = ("messages",)) -> dict[str, Any]:
    (entry,) = conversations([InputRow(0, value, columns)])
    return entry


@pytest.mark.parametrize(
    ("messages", "reason", "detail"),
    [
        (None, "missing_field", "`messages` is missing"),
        ("Human: hi", "wrong_type", "`messages` is a str, expected a list of {role, content}"),
        ([], "empty", "`messages` has no messages"),
        (["hi"], "wrong_type", "messages[0] is a str, expected {role, content}"),
        (
            [{"role": "tool", "content": "x"}],
            "unknown_role",
            "messages[0] has the role 'tool', expected one of user, assistant, system",
        ),
        (
            [{"role": "user", "content": [1]}],
            "wrong_type",
            "messages[0] has a content of type list, not text",
        ),
        (conversation("a", "  \n"), "empty", "messages[1] has no text"),
        (conversation("a", "b\ud83d"), "not_utf8", "messages[1] holds half of a surrogate pair"),
        (
            conversation("a", "b", "c"),
            "not_ending_on_assistant",
            "the last message is the user's: nothing to judge",
        ),
    ],
)
def test_what_cannot_be_scored_and_why(messages: Any, reason: str, detail: str) -> None:
    with pytest.raises(Unscorable) as caught:
        read_messages({"messages": messages}, "messages")
    assert (caught.value.reason, caught.value.detail) == (reason, detail)
    entry = only({"messages": messages})
    assert (entry["messages"], entry["reason"], entry["detail"]) == ([], reason, detail)


def test_a_leading_system_message_is_folded_as_for_training() -> None:
    messages = [{"role": "system", "content": "Be kind."}, *GOOD]
    assert read_messages({"messages": messages}, "messages") == conversation("Be kind.\n\na", "b")


def test_keys_are_the_rows_own_ids_or_numbers() -> None:
    for own, key in (("x", "x"), (7, "7"), (None, "0"), (True, "0"), ("\ud800", "0"), ([1], "0")):
        assert only({"id": own, "messages": GOOD})["key"] == key
    assert only(None)["key"] == "0"


def test_a_pair_is_two_conversations_and_one_bad_side_leaves_the_other() -> None:
    rows = [
        InputRow(0, {"chosen": GOOD, "rejected": []}, ("chosen", "rejected")),
        InputRow(1, None, ("chosen", "rejected"), "not_json", "line 2: bad"),
        InputRow(2, {"messages": GOOD}, ("messages",)),
    ]
    entries = list(conversations(rows))
    assert [(one["id"], one["column"], one["reason"]) for one in entries] == [
        (0, "chosen", ""),
        (1, "rejected", "empty"),
        (2, "chosen", "not_json"),
        (3, "rejected", "not_json"),
        (4, "messages", ""),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", 3]), "content": JSON}
)
ROW = st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=4) | JSON}, optional={"id": JSON})


@given(st.lists(ROW, max_size=5))
def test_every_row_comes_out_once_and_can_be_written_whatever_it_holds(rows: list[dict[str, Any]]) -> None:
    entries = list(conversations(InputRow(number, row, ("messages",)) for number, row in enumerate(rows)))
    assert [one["id"] for one in entries] == [2 * number for number in range(len(rows))]
    assert all(bool(one["reason"]) != bool(one["messages"]) for one in entries)
    assert pa.Table.from_pylist(entries, schema=CONVERSATION_SCHEMA).num_rows == len(rows)
