"""The rows that stages hand to one another, and their versioned Arrow schemas.

This module is the contract between stages: it knows what a row holds, not who makes it or where it
lies. All text is UTF-8; ids are 63-bit hashes of content, so the same input gives the same id on any
machine and growing a run never renumbers anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, TypedDict

import pyarrow as pa

from music_ray.errors import InputError

SCHEMA_VERSION = 3
"""2: a rollout says who wrote it in which role (`writers`) and what each call took (`seconds`).
3: a pair of D may say by how much its chosen side is better (`margin`)."""


class Message(TypedDict):
    """One message of a conversation; role is 'user' or 'assistant' inside the run folder."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class SeedContext:
    """A conversation cut so that it ends on a user message: where a rollout starts."""

    id: int
    """Hash of the messages (content_id)."""
    source: str
    pair_id: str
    """Id of the pair of D it was cut from."""
    conversation: int
    """Hash of the first user message: what the train / held-out split goes by."""
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Contrast:
    """One spoiled turn of a rejected branch."""

    turn: int
    """Generated turn, counted from 1 after the seed."""
    user_message: str
    """What the user of the rejected branch really asked."""
    instruction: str
    """The modified instruction that the reply answers instead."""
    mode: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Call:
    """One engine call of a rollout, for the record and for the gates."""

    turn: int
    branch: Literal["shared", "chosen", "rejected"]
    role: Literal["assistant", "user", "contrast"]
    seed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    """'stop' (the model ended its turn) or 'length' (cut off at max_tokens)."""
    recorded: bool
    """Whether the text became a message of the conversation (retries and instructions did not)."""
    seconds: float = 0.0
    """From asking to answer, waiting for a place in the engine included; 0 in files of version 1."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who played a role of a rollout."""

    role: str
    """assistant, user or contrast."""
    engine: str
    """Name and version, e.g. 'vllm 0.32.0'."""
    model: str
    model_revision: str
    sampling: str
    """The role's sampling section as JSON."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Both branches grown from one seed, or the reason why there are none. One row per seed, always."""

    id: int
    """The seed's id."""
    source: str
    conversation: int
    status: Literal["ok", "error"]
    reason: str
    """Empty, or why an error row has no pair, or why an ok row stopped before turn T."""
    detail: str
    context: list[Message]
    chosen: list[Message]
    """The whole conversation, context included; ends on an assistant message."""
    rejected: list[Message]
    num_generated_turns: int
    first_contrast_turn: int
    """Generated turn (from 1) at which the branches part; 0 in an error row."""
    contrasts: list[Contrast]
    calls: list[Call]
    engine: str
    model: str
    model_revision: str
    prompt_hash: str
    run_epoch: int
    """Which start of the generate stage made the row."""
    seconds: float
    writers: list[Writer] = field(default_factory=list)
    """One a role; `engine`, `model` and `model_revision` are the assistant's. Empty in files of version 1."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two conversations of which the first is preferred: a row of D, of D_MUSIC and of the mix."""

    id: str
    source: str
    origin: Literal["D", "D_MUSIC"]
    conversation: int
    num_turns: int
    """User messages in the chosen side."""
    branch_turn: int
    """The first turn, counted from 1 at the start of the conversation, in which the sides differ."""
    chosen: list[Message]
    rejected: list[Message]
    seed_id: int | None = None
    contrasts: list[Contrast] = field(default_factory=list)
    margin: float | None = None
    """By how much the chosen side is better, as its row of D says; not a number where that is no number."""


MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
MESSAGES = pa.list_(MESSAGE)
CONTRAST = pa.struct(
    [
        ("turn", pa.int32()),
        ("user_message", pa.string()),
        ("instruction", pa.string()),
        ("mode", pa.string()),
        ("attempts", pa.int32()),
    ]
)
CALL = pa.struct(
    [
        ("turn", pa.int32()),
        ("branch", pa.string()),
        ("role", pa.string()),
        ("seed", pa.int64()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("recorded", pa.bool_()),
        ("seconds", pa.float32()),
    ]
)
WRITER = pa.struct(
    [
        ("role", pa.string()),
        ("engine", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("sampling", pa.string()),
    ]
)


def _versioned(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={"music_ray.schema": name, "music_ray.version": str(SCHEMA_VERSION)})


SEED_SCHEMA = _versioned(
    "seed_context",
    [
        ("id", pa.int64()),
        ("source", pa.string()),
        ("pair_id", pa.string()),
        ("conversation", pa.int64()),
        ("messages", MESSAGES),
    ],
)
ROLLOUT_SCHEMA = _versioned(
    "rollout",
    [
        ("id", pa.int64()),
        ("source", pa.string()),
        ("conversation", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("context", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("num_generated_turns", pa.int32()),
        ("first_contrast_turn", pa.int32()),
        ("contrasts", pa.list_(CONTRAST)),
        ("calls", pa.list_(CALL)),
        ("engine", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("prompt_hash", pa.string()),
        ("run_epoch", pa.int32()),
        ("seconds", pa.float64()),
        ("writers", pa.list_(WRITER)),
    ],
)
PAIR_SCHEMA = _versioned(
    "preference_pair",
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("conversation", pa.int64()),
        ("num_turns", pa.int32()),
        ("branch_turn", pa.int32()),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("seed_id", pa.int64()),
        ("contrasts", pa.list_(CONTRAST)),
    ],
)

MARGIN_PAIR_SCHEMA = PAIR_SCHEMA.append(pa.field("margin", pa.float32()))
"""Pairs of which some may have a margin. Not all pairs: TRL's RewardTrainer fails on an empty `margin`, and
MUSIC pairs have none."""

Row = SeedContext | Rollout | PreferencePair


def to_table(rows: list[Any], schema: pa.Schema) -> pa.Table:
    """Dataclass rows as an Arrow table of the given schema.

    Column by column: two and a half times as fast as one dictionary a row; rollouts hold dozens of calls.
    """
    columns = [_column([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        return pa.array(values, type=kind)
    entries = [entry for value in values for entry in value]
    fields = [kind.value_type.field(number) for number in range(kind.value_type.num_fields)]
    read = dict.__getitem__ if entries and isinstance(entries[0], dict) else getattr
    inner = [pa.array([read(entry, field.name) for entry in entries], type=field.type) for field in fields]
    ends = list(accumulate((len(value) for value in values), initial=0))
    return pa.ListArray.from_arrays(
        pa.array(ends, type=pa.int32()), pa.StructArray.from_arrays(inner, fields=fields), type=kind
    )


def seed_from_row(row: dict[str, Any]) -> SeedContext:
    """A SeedContext from a row of a Parquet file."""
    return SeedContext(**row)


def rollout_from_row(row: dict[str, Any]) -> Rollout:
    """A Rollout from a row of a Parquet file."""
    contrasts = [Contrast(**contrast) for contrast in row["contrasts"]]
    calls = [Call(**call) for call in row["calls"]]
    writers = [Writer(**writer) for writer in row.get("writers") or ()]
    return Rollout(**{**row, "contrasts": contrasts, "calls": calls, "writers": writers})


def pair_from_row(row: dict[str, Any]) -> PreferencePair:
    """A PreferencePair from a row of a Parquet file."""
    return PreferencePair(**{**row, "contrasts": [Contrast(**contrast) for contrast in row["contrasts"]]})


def check_version(schema: pa.Schema, path: str) -> None:
    """Refuses a file that a newer music_ray wrote.

    Raises:
        InputError: the file's schema version is above this program's.
    """
    version = int((schema.metadata or {}).get(b"music_ray.version", b"0"))
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, but this music_ray reads up to {SCHEMA_VERSION}: "
            "upgrade music_ray"
        )


def is_utf8(text: str) -> bool:
    """Whether a text can be written to a file: JSON can escape half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def content_id(value: Any) -> int:
    """A 63-bit hash of any JSON value, the same on every machine: ids, splits, per-request seeds."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def pair_content(row: dict[str, Any]) -> int:
    """Hash of what is trained on of a PreferencePair row: its sides, and its margin if it has one."""
    margin = row.get("margin")
    return content_id([row["chosen"], row["rejected"], *([] if margin is None else [margin])])


def unit_interval(*parts: Any) -> float:
    """A number in [0, 1) that is a function of its arguments alone."""
    # The largest hashes would be rounded up to 1.
    return min(content_id(list(parts)) / 2**63, 1 - 2**-53)


def conversation_hash(messages: list[Message]) -> int:
    """Identifies a conversation by its first user message, so that all its pairs and cuts agree."""
    first = next(message["content"] for message in messages if message["role"] == "user")
    return content_id(["conversation", " ".join(first.split())])


def count_user_turns(messages: list[Message]) -> int:
    """How many user messages a conversation has."""
    return sum(message["role"] == "user" for message in messages)


def split_turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages grouped into turns: each begins with a user message and holds what follows it."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def first_difference(chosen: list[Message], rejected: list[Message]) -> int:
    """The turn, counted from 1, in which two conversations first differ; 0 when they are equal."""
    turn = 0
    for index in range(max(len(chosen), len(rejected))):
        left = chosen[index] if index < len(chosen) else None
        right = rejected[index] if index < len(rejected) else None
        present = left or right
        if present is not None and present["role"] == "user":
            turn += 1
        if left != right:
            return max(turn, 1)
    return 0
