"""The preference set D as one stream of pairs, and of rows that had to be set aside.

Joins sources (where rows lie) and shapes (what they mean), and knows what only the whole stream can tell:
duplicates, ids that clash, and sources without a single usable row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from music_ray.config import DataConfig, SourceConfig
from music_ray.data_files import JSON_SUFFIXES, RawRow
from music_ray.errors import InputError
from music_ray.generate.licences import Key, row_licence
from music_ray.generate.shapes import UnusableRow, normalise_row, row_margin
from music_ray.generate.sources import raw_rows, source_name
from music_ray.schema import (
    PreferencePair,
    content_id,
    conversation_hash,
    count_user_turns,
    first_difference,
    is_utf8,
)

TEXT_LIMIT = 500
"""Characters of a row's text that are kept when it is set aside."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row that gave no pair: one line of seeds/set_aside.jsonl."""

    source: str
    row: int
    reason: str
    detail: str
    text: str


def read_preferences(
    data: DataConfig, licences: Counter[Key] | None = None
) -> Iterator[PreferencePair | SetAside]:
    """Every row of D in the order of the sources: as a pair with a unique id, or set aside.

    Args:
        licences: counts the pairs by source and by the licence that their rows name.

    Raises:
        InputError: no source is configured; a file or dataset is missing, empty, damaged or without the
            expected columns; or no row of a source is usable.
    """
    if not data.sources:
        raise InputError(
            "data.sources is empty: name the preference set, e.g. data.sources=[{path: my-pairs.jsonl}] "
            "or [{path: sample}]"
        )
    known = _Known(set(), set(), Counter() if licences is None else licences)
    for index in range(len(data.sources)):
        yield from _read_source(index, data, known)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the stream has had: hashes of pairs, ids of pairs, and what rows said of their licence."""

    contents: set[int]
    ids: set[str]
    licences: Counter[Key]


def _read_source(index: int, data: DataConfig, known: _Known) -> Iterator[PreferencePair | SetAside]:
    source = data.sources[index]
    usable = 0
    reasons: Counter[str] = Counter()
    example = ""
    for raw in islice(raw_rows(source), source.limit):
        try:
            pair, content = _pair(raw, source_name(source), data.system)
        except UnusableRow as error:
            reasons[error.reason] += 1
            example = example or f"row {raw.number}: {error.detail}"
            yield set_aside(raw, error.reason, error.detail)
            continue
        usable += 1
        if content in known.contents:
            yield set_aside(raw, "duplicate_pair", "the same two sides came before")
            continue
        known.contents.add(content)
        if pair.id in known.ids:
            # Two sources may both count their rows from 0: the later pair's id gets its content's hash.
            pair = replace(pair, id=f"{pair.id}-{content:016x}")
        known.ids.add(pair.id)
        known.licences[pair.source, index, row_licence(raw.value or {})] += 1
        yield pair
    if not usable:
        raise _nothing_usable(source, reasons, example)


def _nothing_usable(source: SourceConfig, reasons: Counter[str], example: str) -> InputError:
    counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    remedy = "correct the file, or name another source in data.sources"
    if str(source.path).endswith(JSON_SUFFIXES) and set(reasons) <= {"not_json", "wrong_type"}:
        remedy = "write one JSON object a line, e.g. with jq -c '.[]'"
    return InputError(f"no row of {source.hub or source.path} can be used: {counted} ({example}); {remedy}")


def _pair(raw: RawRow, name: str, system: Any) -> tuple[PreferencePair, int]:
    """The pair of a row, and the hash of its content: the same two sides are the same pair."""
    if raw.value is None:
        raise UnusableRow(raw.reason, raw.detail)
    chosen, rejected = normalise_row(raw.value, system)
    content = content_id([chosen, rejected])
    pair = PreferencePair(
        id=_own_id(raw.value.get("id")) or f"{content:016x}",
        source=_own_name(raw.value.get("source")) or name,
        origin="D",
        conversation=conversation_hash(chosen),
        num_turns=count_user_turns(chosen),
        branch_turn=first_difference(chosen, rejected),
        chosen=chosen,
        rejected=rejected,
        margin=row_margin(raw.value),
    )
    return pair, content


def _own_name(value: Any) -> str:
    return value.strip() if isinstance(value, str) and is_utf8(value) else ""


def _own_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    text = str(value).strip()
    return text if is_utf8(text) else ""


def set_aside(raw: RawRow, reason: str, detail: str) -> SetAside:
    """The record of a row that gave no pair; its text is cut and always valid UTF-8."""
    text = raw.text if raw.value is None else json.dumps(raw.value, ensure_ascii=False, default=str)
    return SetAside(raw.place, raw.number, reason, _utf8(detail), _utf8(text[:TEXT_LIMIT]))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
