"""Reading what a model wrote between the tags that a contrast prompt asks for.

Models ramble on after the last tag, or end without it. Neither makes a reply worse; a reply that was
cut off in its middle is one that could not be read.
"""

from __future__ import annotations

from typing import NamedTuple

_PLACEHOLDERS = {"the modified instruction", "the reply to the modified instruction"}
"""What the built-in prompts show between their tags: a model that repeats it has written nothing."""


class Tagged(NamedTuple):
    """What stands between a tag and its end."""

    text: str
    """Empty when there is nothing to read."""
    closed: bool
    """Whether the closing tag was seen."""
    rest: str
    """What follows the closing tag."""


def find(answer: str, tag: str) -> Tagged:
    """The text between the first <tag> and the </tag> after it, without the white space around it."""
    _, _, after = answer.partition(f"<{tag}>")
    inside, closing, rest = after.partition(f"</{tag}>")
    text = inside.strip()
    return Tagged("" if text.lower().strip("[](). ") in _PLACEHOLDERS else text, bool(closing), rest)


def find_instruction(answer: str) -> str:
    """The modified instruction, empty when there is none."""
    found = find(answer, "modified_instruction")
    return found.text if found.closed else ""


def find_joint(answer: str, finish_reason: str) -> tuple[str, str, bool]:
    """Instruction, reply, and whether the reply's end was seen.

    Args:
        finish_reason: of the call. A model that ended its turn ('stop') has also ended its reply, even
            without the closing tag.
    """
    instruction = find(answer, "modified_instruction")
    if not (instruction.text and instruction.closed):
        return "", "", False
    reply = find(instruction.rest, "reply")
    if not (reply.closed or finish_reason == "stop"):
        return instruction.text, "", False
    return instruction.text, reply.text, True
