"""Conversations of a data set, whatever is wrong with some of them: one entry for each, always.

Knows rows and messages, not files (music_ray/score/files.py) and not models: what only a tokenizer can
tell is found where the conversation is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from music_ray.chat import fold_system
from music_ray.schema import Message, is_utf8
from music_ray.score.rows import conversation_id

_ROLES = ("user", "assistant", "system")
DETAIL_LIMIT = 300
"""Characters of an explanation that are kept."""


class Unscorable(Exception):
    """A conversation that gets no score: `reason` is counted, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:DETAIL_LIMIT]


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row of the input, or the reason why it could not be read."""

    number: int
    """Of all rows of the input, from 0."""
    value: dict[str, Any] | None
    columns: tuple[str, ...]
    """Which of the file's columns hold conversations: (messages,) or (chosen, rejected)."""
    reason: str = ""
    detail: str = ""


def conversations(rows: Iterable[InputRow]) -> Iterator[dict[str, Any]]:
    """Rows of CONVERSATION_SCHEMA, in the order of the input; a pair gives two, one after the other."""
    for row in rows:
        for column in row.columns:
            entry: dict[str, Any] = {
                "id": conversation_id(row.number, column),
                "key": _key(row),
                "column": column,
                "messages": [],
                "reason": row.reason,
                "detail": row.detail[:DETAIL_LIMIT],
            }
            if row.value is not None:
                try:
                    entry["messages"] = read_messages(row.value, column)
                except Unscorable as error:
                    entry |= {"reason": error.reason, "detail": error.detail}
            yield entry


def _key(row: InputRow) -> str:
    """The row's own id where it has one that can be written, else its number."""
    own = (row.value or {}).get("id")
    if isinstance(own, (str, int)) and not isinstance(own, bool) and is_utf8(str(own)):
        return str(own)
    return str(row.number)


def read_messages(row: dict[str, Any], column: str) -> list[Message]:
    """A conversation that a chat template can be tried on.

    A leading system message is folded into the first user message, as it was for training.

    Raises:
        Unscorable: it is missing, malformed or empty, or the assistant does not have the last word.
    """
    given = row.get(column)
    if given is None:
        raise Unscorable("missing_field", f"`{column}` is missing")
    if not isinstance(given, list):
        raise Unscorable(
            "wrong_type", f"`{column}` is a {type(given).__name__}, expected a list of {{role, content}}"
        )
    if not given:
        raise Unscorable("empty", f"`{column}` has no messages")
    messages = [_message(one, f"{column}[{number}]") for number, one in enumerate(given)]
    if messages[-1]["role"] != "assistant":
        raise Unscorable(
            "not_ending_on_assistant", f"the last message is the {messages[-1]['role']}'s: nothing to judge"
        )
    return fold_system(messages)


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise Unscorable("wrong_type", f"{place} is a {type(value).__name__}, expected {{role, content}}")
    role, content = value.get("role"), value.get("content")
    if role not in _ROLES:
        raise Unscorable(
            "unknown_role", f"{place} has the role {role!r}, expected one of {', '.join(_ROLES)}"
        )
    if not isinstance(content, str):
        raise Unscorable("wrong_type", f"{place} has a content of type {type(content).__name__}, not text")
    if not content.strip():
        raise Unscorable("empty", f"{place} has no text")
    if not is_utf8(content):
        raise Unscorable("not_utf8", f"{place} holds half of a surrogate pair")
    return {"role": role, "content": content}
