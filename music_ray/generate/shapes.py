"""One row of a preference set, in any of the shapes people have, as two lists of messages.

Knows shapes and what makes a row unusable; it does not know where rows come from, nor about other rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from music_ray.schema import Message

SIDES = ("chosen", "rejected")
LICENCE_COLUMNS = ("licence", "license")
COLUMNS = ("prompt", *SIDES, "id", "source", "margin", *LICENCE_COLUMNS)
"""The columns of a row that are looked at."""
EXPECTED = (
    "`chosen` and `rejected` as lists of {role, content} messages or as '\\n\\nHuman: … \\n\\nAssistant: …' "
    "strings, or `prompt` with `chosen` and `rejected`"
)

_ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
}
_HH_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_HH_START = re.compile(r"\s*(?:Human|Assistant):")


class UnusableRow(Exception):
    """A row that gives no pair: `reason` is counted, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def normalise_row(
    row: Mapping[str, Any], system: Literal["fold", "set_aside"]
) -> tuple[list[Message], list[Message]]:
    """The two sides of a row as conversations that begin with the user and end on the assistant.

    Args:
        row: any JSON-like object.
        system: what becomes of a leading system message (DataConfig.system).

    Raises:
        UnusableRow: the row is malformed, with the reason.
    """
    for name in SIDES:
        if row.get(name) is None:
            raise UnusableRow("missing_field", f"`{name}` is missing; the row has {name_columns(row)}")
    opening = _opening(row.get("prompt"))
    sides = []
    for name in SIDES:
        messages = _with_opening(opening, _side(name, row[name], bool(opening)))
        messages = _without_system(name, messages, system)
        check_conversation(name, messages)
        sides.append(messages)
    chosen, rejected = sides
    if chosen[0] != rejected[0]:
        raise UnusableRow("no_shared_opening", "the first user messages of chosen and rejected differ")
    # Outer white space alone is nothing to prefer one side for.
    if [_bare(message) for message in chosen] == [_bare(message) for message in rejected]:
        raise UnusableRow("sides_equal", "chosen and rejected hold the same messages")
    return chosen, rejected


def row_margin(row: Mapping[str, Any]) -> float | None:
    """By how much the chosen side of a row is better: its `margin`, None where it has none.

    What is no number becomes NaN. The row stays in D: only a training that uses margins must do without it,
    and a column of this name may hold something else.
    """
    value = row.get("margin")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def name_columns(names: Mapping[str, Any] | set[str] | list[str]) -> str:
    """Column names for a message to the user, at most a dozen."""
    ordered = sorted(str(name) for name in names)
    shown = ", ".join(f"`{name}`" for name in ordered[:12])
    return (shown + (", …" if len(ordered) > 12 else "")) or "no columns"


def parse_hh(text: str) -> list[Message]:
    """The messages of an hh-rlhf string; what stands around a message as white space is not part of it."""
    parts = _HH_MARKER.split(text)
    speakers, contents = parts[1::2], parts[2::2]
    return [
        Message(role=_ROLES[speaker.lower()], content=content.strip())
        for speaker, content in zip(speakers, contents, strict=True)
    ]


def check_conversation(name: str, messages: list[Message]) -> None:
    """Refuses what is no conversation from a user message to an assistant message.

    Args:
        name: the side, for the message.

    Raises:
        UnusableRow: starts_with_assistant, roles_not_alternating, empty_message or ends_on_user.
    """
    if not messages:
        raise UnusableRow("empty_message", f"`{name}` holds no messages")
    if messages[0]["role"] == "assistant":
        raise UnusableRow("starts_with_assistant", f"`{name}` begins with an assistant message")
    for index, message in enumerate(messages):
        number = index + 1
        if index and message["role"] == messages[index - 1]["role"]:
            raise UnusableRow(
                "roles_not_alternating",
                f"messages {index} and {number} of `{name}` are both of the {message['role']}",
            )
        if not message["content"].strip():
            raise UnusableRow("empty_message", f"message {number} of `{name}` ({message['role']}) is empty")
    if messages[-1]["role"] != "assistant":
        raise UnusableRow("ends_on_user", f"`{name}` ends on a user message: there is no reply to judge")


def _opening(prompt: Any) -> list[Message]:
    """The messages of a `prompt` column; none when there is no such column or it is empty."""
    if prompt is None:
        return []
    if isinstance(prompt, (str, bytes)):
        text = _text("prompt", prompt)
        if not text.strip():
            return []
        # Only the exact hh-rlhf start: a user may well write "Human: …" at the start of a message.
        if text.startswith("\n\nHuman:"):
            messages = parse_hh(text)
            return messages[:-1] if not messages[-1]["content"] else messages
        return [Message(role="user", content=text)]
    if isinstance(prompt, list):
        return [_message("prompt", number, message) for number, message in enumerate(prompt, start=1)]
    raise UnusableRow("wrong_type", f"`prompt` is {_kind(prompt)}, expected a string or a list of messages")


def _side(name: str, value: Any, has_prompt: bool) -> list[Message]:
    if isinstance(value, (str, bytes)):
        text = _text(name, value)
        if text.startswith("\n\nHuman:") if has_prompt else _HH_START.match(text):
            return parse_hh(text)
        if has_prompt:
            return [Message(role="assistant", content=text)]
        if not text.strip():
            raise UnusableRow("empty_message", f"`{name}` is empty")
        raise UnusableRow(
            "unknown_shape",
            f"`{name}` is text that does not begin with '\\n\\nHuman:', and there is no `prompt`",
        )
    if isinstance(value, list):
        return [_message(name, number, message) for number, message in enumerate(value, start=1)]
    raise UnusableRow("wrong_type", f"`{name}` is {_kind(value)}, expected a string or a list of messages")


def _message(name: str, number: int, value: Any) -> Message:
    where = f"message {number} of `{name}`"
    if not isinstance(value, Mapping):
        raise UnusableRow("wrong_type", f"{where} is {_kind(value)}, expected {{role, content}}")
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if role is None:
        raise UnusableRow("missing_field", f"{where} has no `role`; it has {name_columns(value)}")
    if not isinstance(role, str) or role.strip().lower() not in _ROLES:
        raise UnusableRow("unknown_role", f"{where} has the role {str(role)[:60]!r}")
    if content is None:
        raise UnusableRow("empty_message", f"{where} has no content")
    return Message(role=_ROLES[role.strip().lower()], content=_text(where, content))


def _text(where: str, value: Any) -> str:
    """A string that can be written as UTF-8; Parquet files of old writers hold text as bytes."""
    if not isinstance(value, (str, bytes)):
        raise UnusableRow("wrong_type", f"the text of {where} is {_kind(value)}, expected a string")
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        value.encode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UnusableRow("not_utf8", f"{where}: {error.reason} at {error.start}") from None
    return value


def _with_opening(opening: list[Message], messages: list[Message]) -> list[Message]:
    """Prompt plus completion, unless the completion is the whole conversation already (UltraFeedback)."""
    repeated = messages
    if opening and messages and messages[0]["role"] == "system" != opening[0]["role"]:
        repeated = messages[1:]
    if [_bare(message) for message in repeated[: len(opening)]] == [_bare(message) for message in opening]:
        return messages
    return opening + messages


def _without_system(name: str, messages: list[Message], system: str) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        text, messages = messages[0]["content"].strip(), messages[1:]
        if text and system == "set_aside":
            raise UnusableRow(
                "system_message", f"`{name}` begins with a system message (data.system is set_aside)"
            )
        if text and messages and messages[0]["role"] == "user":
            messages = [Message(role="user", content=f"{text}\n\n{messages[0]['content']}"), *messages[1:]]
    if any(message["role"] == "system" for message in messages):
        raise UnusableRow("system_message", f"`{name}` holds a system message after its start")
    return messages


def _bare(message: Message) -> tuple[str, str]:
    return message["role"], message["content"].strip()


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), f"a {type(value).__name__}"
    )
