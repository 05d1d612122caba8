"""One accepted pair as a row of another trainer's data.

- `sft`: one side as `messages`, as TRL's SFTTrainer and most others read conversations;
- `dpo`: the turn where the sides part, as TRL's conversational preferences with an explicit prompt.

Knows rows, not files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyarrow as pa

from music_ray.schema import MESSAGES, SCHEMA_VERSION, Message

Format = Literal["sft", "dpo"]
Side = Literal["chosen", "rejected"]
ContextLength = Callable[[int], int | None]
"""Messages of a seed's context, by the seed's id; None when it is not known."""

SCHEMA_NAME = b"music_ray.schema"
PAIRS_DIGEST = b"music_ray.pairs"
"""Metadata of an exported file: `output` of the pairs stage that it was made from."""


class NotExportable(Exception):
    """A pair that has no row in a format; the reason is counted."""


_COLUMNS: dict[Format, list[tuple[str, pa.DataType]]] = {
    "sft": [
        ("id", pa.string()),
        ("source", pa.string()),
        ("conversation", pa.int64()),
        ("num_turns", pa.int32()),
        ("num_context_messages", pa.int32()),
        ("messages", MESSAGES),
    ],
    "dpo": [
        ("id", pa.string()),
        ("source", pa.string()),
        ("conversation", pa.int64()),
        ("branch_turn", pa.int32()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
    ],
}
FIELDS = {
    "id": "`music-` and the id of the seed: the pair's id in pairs/",
    "source": "the source of the seed conversation",
    "conversation": "hash of the first user message: split by it, not by row",
    "num_turns": "user messages in the conversation",
    "num_context_messages": "the first messages that are the seed's, not generated; empty when not known",
    "messages": "the {side} conversation as a list of `{{role, content}}`",
    "branch_turn": "the turn, from 1, that the sides answer differently",
    "prompt": "the conversation up to the user message that both sides answer",
    "chosen": "the reply to it: one assistant message",
    "rejected": "the reply to something else: one assistant message",
}
"""What the columns mean, for the card."""


def schema_of(format: Format, pairs_digest: str) -> pa.Schema:
    """The Arrow schema of an exported file, with what it is and what it was made from."""
    return pa.schema(
        _COLUMNS[format],
        metadata={
            SCHEMA_NAME: format.encode(),
            b"music_ray.version": str(SCHEMA_VERSION).encode(),
            PAIRS_DIGEST: pairs_digest.encode(),
        },
    )


def sft_row(pair: dict[str, Any], side: Side, context_length: ContextLength) -> dict[str, Any]:
    """A whole conversation."""
    return {
        "id": pair["id"],
        "source": pair["source"],
        "conversation": pair["conversation"],
        "num_turns": pair["num_turns"],
        "num_context_messages": context_length(pair["seed_id"]),
        "messages": pair[side],
    }


def dpo_row(pair: dict[str, Any]) -> dict[str, Any]:
    """The last user message that both sides have in common, with all before it, and the two replies.

    Raises:
        NotExportable: same_reply or prompts_differ: no turn has one prompt and two replies.
    """
    chosen, rejected = pair["chosen"], pair["rejected"]
    parted = _first_difference(chosen, rejected)
    if parted is None:
        raise NotExportable("same_reply")
    if chosen[parted]["role"] != "assistant" or rejected[parted]["role"] != "assistant":
        raise NotExportable("prompts_differ")
    if chosen[parted]["content"].strip() == rejected[parted]["content"].strip():
        raise NotExportable("same_reply")
    return {
        "id": pair["id"],
        "source": pair["source"],
        "conversation": pair["conversation"],
        "branch_turn": pair["branch_turn"],
        "prompt": chosen[:parted],
        "chosen": [chosen[parted]],
        "rejected": [rejected[parted]],
    }


def _first_difference(chosen: list[Message], rejected: list[Message]) -> int | None:
    """The first message in which the sides differ; None when one is the beginning of the other."""
    for index, (left, right) in enumerate(zip(chosen, rejected, strict=False)):
        if left != right:
            return index
    return None
