"""The prompts of best-of-N: read from files, named, and those that can't be used set aside with a reason.

Knows rows and their ids, not what is made from them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from music_ray.chat import fold_system
from music_ray.config import BestOfNConfig
from music_ray.data_files import RawRow, file_rows, find_files, naming_damage
from music_ray.errors import ConfigError, InputError
from music_ray.schema import MESSAGES, SCHEMA_VERSION, Message, content_id, is_utf8

_COLUMNS = ("id", "source", "prompt", "answer")
PROMPT_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("prompt", MESSAGES),
        ("answer", pa.string()),
    ],
    metadata={"music_ray.schema": "best_of_n_prompt", "music_ray.version": str(SCHEMA_VERSION)},
)
"""What goes into the job; `id` is a hash of all that decides the row."""


@dataclass
class Prompts:
    """Rows of PROMPT_SCHEMA in the order of their ids, and what could not be used."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    set_aside: Counter[str] = field(default_factory=Counter)
    """Reasons: no_prompt, wrong_type, not_json, not_utf8, duplicate_id, duplicate_prompt."""
    without_id: int = 0
    """Of the rows, how many got an id from their content."""


def read_prompts(config: BestOfNConfig) -> Prompts:
    """The prompts that the configuration names.

    Raises:
        ConfigError: it names none.
        InputError: there is no file, it is damaged or empty, or no row of it can be used.
    """
    if config.prompts is None:
        raise ConfigError(
            "best_of_n.prompts is empty: name a file of prompts, e.g. best_of_n.prompts=prompts.parquet"
        )
    found, others = Prompts(), 0
    ids: set[str] = set()
    texts: set[int] = set()
    for file in find_files(config.prompts, "name the prompts in best_of_n.prompts"):
        with naming_damage(file.name, "name another file in best_of_n.prompts"):
            for raw in file_rows(file, _COLUMNS):
                row = _row(raw, found)
                if row is not None and config.sources and row["source"] not in config.sources:
                    others += 1
                elif row is not None:
                    _add(row, found, ids, texts)
    _check_any(config, found, others)
    found.rows.sort(key=lambda row: row["id"])
    found.rows = found.rows[: config.num_prompts]
    found.without_id = sum(row["prompt_id"] == _content_name(row["prompt"]) for row in found.rows)
    return found


def _row(raw: RawRow, found: Prompts) -> dict[str, Any] | None:
    """A row of PROMPT_SCHEMA, or None and the reason is counted."""
    if raw.value is None:
        found.set_aside[raw.reason] += 1
        return None
    value = raw.value
    prompt = _messages(value.get("prompt"))
    if not prompt:
        found.set_aside["no_prompt" if value.get("prompt") in (None, "", []) else "wrong_type"] += 1
        return None
    name = value.get("id")
    if name is None or name == "":
        name = _content_name(prompt)
    answer = None if value.get("answer") is None else str(value["answer"])
    texts = [str(name), str(value.get("source") or ""), answer or "", *(one["content"] for one in prompt)]
    if not all(map(is_utf8, texts)):
        found.set_aside["not_utf8"] += 1
        return None
    return {
        "id": content_id(["best_of_n", str(name), prompt, answer]),
        "prompt_id": str(name),
        "source": str(value.get("source") or ""),
        "prompt": prompt,
        "answer": answer,
    }


def _content_name(prompt: list[Message]) -> str:
    return f"{content_id(prompt):016x}"


def _messages(prompt: Any) -> list[Message]:
    """The prompt as messages that end on the user's; empty where it is none."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}] if prompt.strip() else []
    if not isinstance(prompt, list) or not all(_is_message(one) for one in prompt):
        return []
    messages = fold_system([{"role": one["role"], "content": one["content"]} for one in prompt])
    roles = [one["role"] for one in messages]
    alternating = [("user", "assistant")[index % 2] for index in range(len(roles))]
    return messages if roles and roles == alternating and roles[-1] == "user" else []


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)


def _add(row: dict[str, Any], found: Prompts, ids: set[str], texts: set[int]) -> None:
    text = content_id(row["prompt"])
    if text in texts:
        found.set_aside["duplicate_prompt"] += 1
    elif row["prompt_id"] in ids:
        found.set_aside["duplicate_id"] += 1
    else:
        found.rows.append(row)
        ids.add(row["prompt_id"])
        texts.add(text)


def _check_any(config: BestOfNConfig, found: Prompts, others: int) -> None:
    if found.rows:
        return
    if others:
        raise InputError(
            f"none of the {others} prompts of {config.prompts} is of best_of_n.sources "
            f"({', '.join(config.sources)}): correct the sources, or leave them out"
        )
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(found.set_aside.items()))
    what = f"none of its rows can be used ({reasons})" if reasons else "it has no rows"
    raise InputError(
        f"{config.prompts} holds no prompts: {what}; a row needs `prompt`, as text or as messages that end "
        "on the user's"
    )
