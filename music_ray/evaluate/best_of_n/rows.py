"""A prompt with all that was picked for it, as a row: one a prompt, whatever happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from music_ray.evaluate.best_of_n.picks import Pick
from music_ray.schema import MESSAGES, SCHEMA_VERSION, Message

_PICK = pa.struct(
    [
        ("picker", pa.string()),
        ("selection", pa.string()),
        ("n", pa.int32()),
        ("conversation", MESSAGES),
        ("candidates", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float64())),
        ("checked", pa.float64()),
        ("num_candidates", pa.int32()),
        ("num_unscored", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class PickedRow:
    """What became of one prompt."""

    id: int
    prompt_id: str
    source: str
    status: Literal["ok", "error"]
    reason: str
    """Why there are no picks: an engine's reason, or a scorer's where no candidate has a score."""
    detail: str
    prompt: list[Message]
    answer: str | None
    picks: list[Pick]
    """Of all contenders; none in an error row."""
    num_replies: int
    """Candidates that were written."""
    num_questions: int
    """Messages that the user simulator wrote."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    engine: str
    model: str
    """The assistant's."""
    model_revision: str
    user_model: str
    prompt_hash: str
    run_epoch: int
    seconds: float


PICKED_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("prompt", MESSAGES),
        ("answer", pa.string()),
        ("picks", pa.list_(_PICK)),
        ("num_replies", pa.int32()),
        ("num_questions", pa.int32()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("engine", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("user_model", pa.string()),
        ("prompt_hash", pa.string()),
        ("run_epoch", pa.int32()),
        ("seconds", pa.float64()),
    ],
    metadata={"music_ray.schema": "best_of_n", "music_ray.version": str(SCHEMA_VERSION)},
)
