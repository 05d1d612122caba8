"""The rows of scoring: a conversation that waits for its score, and one that has it or the reason why not.

Ids are places in the input: two for each row of it, so that sorting by id restores the input's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from music_ray.schema import MESSAGES, SCHEMA_VERSION

COLUMNS = ("messages", "chosen", "rejected")
"""Where a conversation may stand in a row of the input."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The score of one conversation."""

    id: int
    status: Literal["ok", "error"]
    reason: str
    detail: str
    score: float | None
    """A float32 value; None in an error row."""
    num_tokens: int
    """Length of the conversation; 0 where it was not tokenised."""


def conversation_id(row: int, column: str) -> int:
    """The id of the conversation in one column of the input's row, counted from 0."""
    return 2 * row + (column == "rejected")


def _versioned(
    name: str, fields: list[tuple[str, pa.DataType]], facts: dict[str, str] | None = None
) -> pa.Schema:
    metadata = {"music_ray.schema": name, "music_ray.version": str(SCHEMA_VERSION)}
    return pa.schema(fields, metadata=metadata | (facts or {}))


CONVERSATION_SCHEMA = _versioned(
    "conversation",
    [
        ("id", pa.int64()),
        ("key", pa.string()),
        ("column", pa.string()),
        ("messages", MESSAGES),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ],
)
"""What goes in: `key` is the row's own id; with a `reason` there is nothing to score."""


def shard_schema(facts: dict[str, str]) -> pa.Schema:
    """What comes out of the engines, with the model's identity as metadata."""
    return _versioned(
        "score_shard",
        [
            ("id", pa.int64()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("detail", pa.string()),
            ("score", pa.float64()),
            ("num_tokens", pa.int32()),
        ],
        facts,
    )


def result_schema(facts: dict[str, str]) -> pa.Schema:
    """What the user gets, with the model's identity as metadata."""
    return _versioned(
        "score",
        [
            ("id", pa.string()),
            ("row", pa.int64()),
            ("column", pa.string()),
            ("score", pa.float64()),
            ("num_tokens", pa.int32()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("detail", pa.string()),
        ],
        facts,
    )
