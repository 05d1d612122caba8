"""Pair sets that are evaluated on: files, folders or a data set of the hub, as pairs of conversations.

Two shapes: `chosen` and `rejected` as lists of messages, and RewardBench's, in which they are replies to a
`prompt` that is text or a list of messages. Knows rows and what makes one no pair; what a model makes of a
conversation (its template refuses it, it is empty, it is too long) is found where it is scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from music_ray.chat import fold_system
from music_ray.data_files import SUFFIXES, RawRow, file_rows, find_files, naming_damage, parquet_columns
from music_ray.errors import InputError
from music_ray.evaluate.accuracy import PairFacts
from music_ray.evaluate.rewardbench import NOT_AVERAGED, PRIOR_SETS
from music_ray.schema import (
    Message,
    content_id,
    conversation_hash,
    count_user_turns,
    first_difference,
    is_utf8,
)

HubRows = Callable[[str, str | None, str, str], Iterator[RawRow]]
"""Rows of a data set of the hub: (id, revision, split, what names it on the command line)."""
_COLUMNS = ("id", "source", "subset", "prompt", "chosen", "rejected")
_EXPECTED = (
    "`chosen` and `rejected` as lists of {role, content} messages, or RewardBench's `subset`, `prompt`, "
    "`chosen` and `rejected`"
)
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?(?::([\w.-]+))?")
_SPLITS = {
    "allenai/reward-bench": ("filtered",),
    "allenai/preference-test-sets": tuple(PRIOR_SETS),
    "allenai/pref-test-sets": tuple(PRIOR_SETS),  # its name in the reference's own loader
}
"""Which splits are meant where the command names none; of other data sets it is train."""
_OF_SPLIT = re.compile(r"(\w+)-\d{5}-of-\d{5}")
"""Names of a hub data set's files: SPLIT-00000-of-00001.parquet."""
_ROLES = ("user", "assistant", "system")


class _NoPair(Exception):
    """A row that is no pair: `reason` is counted, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class EvalPair:
    """Two conversations, the first of which is better."""

    id: str
    """The row's own; rows may share one."""
    source: str
    """The row's source, else its subset, else the set's name."""
    subset: str
    """RewardBench's; empty where the set has no such column."""
    chosen: list[Message]
    rejected: list[Message]


@dataclass(frozen=True)
class PairSet:
    """One named set of pairs."""

    name: str
    """Fit for a folder; no other set of the same evaluation has it."""
    place: str
    """As the user named it."""
    pairs: list[EvalPair]
    set_aside: Counter[str] = field(default_factory=Counter)
    """Rows that are no pairs, by reason."""

    def first(self, limit: int | None) -> PairSet:
        """At most so many of the pairs, in their order: the first by a hash of their ids."""
        if limit is None or limit >= len(self.pairs):
            return self
        order = sorted(range(len(self.pairs)), key=lambda at: content_id(["evaluate", self.pairs[at].id]))
        return replace(self, pairs=[self.pairs[at] for at in sorted(order[:limit])])

    def facts(self) -> PairFacts:
        """What is known of the pairs without a model."""
        return PairFacts(
            sources=np.array([pair.source for pair in self.pairs]),
            num_turns=np.array([count_user_turns(pair.chosen) for pair in self.pairs]),
            branch_turns=np.array([first_difference(pair.chosen, pair.rejected) for pair in self.pairs]),
            contexts=np.array([conversation_hash(pair.chosen) for pair in self.pairs], dtype=np.int64),
        )

    def subsets(self) -> np.ndarray:
        """RewardBench's subset of each pair, text."""
        return np.array([pair.subset for pair in self.pairs])

    def characters(self) -> np.ndarray:
        """Lengths of both sides' texts, [n, 2]."""
        sides = [(pair.chosen, pair.rejected) for pair in self.pairs]
        return np.array([[sum(len(one["content"]) for one in side) for side in both] for both in sides])


def read_pair_sets(places: list[str], hub_rows: HubRows) -> list[PairSet]:
    """The pair sets at these places, each with a name of its own.

    Args:
        places: files or folders, or ids of the hub: OWNER/NAME[@REVISION][:SPLIT].
        hub_rows: reads the latter.

    Raises:
        InputError: nothing is there, it is damaged, it holds no pairs, or a pair has no id.
    """
    found: list[PairSet] = []
    for place in places:
        made = read_pair_set(place, hub_rows)
        taken = {one.name for one in found}
        names = [made.name, *(f"{made.name}-{number}" for number in range(2, len(places) + 1))]
        free = next(name for name in names if name not in taken)
        found.append(replace(made, name=free))
    return found


def read_pair_set(place: str, hub_rows: HubRows) -> PairSet:
    """One of read_pair_sets."""
    hub = None if _is_path(place) else _HUB_ID.fullmatch(place)
    if hub is None:
        name, rows = _stem(place), _rows_of_files(place)
    else:
        name, rows = hub[1].rpartition("/")[2], _rows_of_hub(hub[1], hub[2], hub[3], hub_rows)
    pairs: list[EvalPair] = []
    set_aside: Counter[str] = Counter()
    example = ""
    for raw in rows:
        try:
            pairs.append(_pair(raw, name))
        except _NoPair as error:
            set_aside[error.reason] += 1
            example = example or f"row {raw.number}: {error.detail}"
    if not pairs:
        counted = ", ".join(f"{reason} {count}" for reason, count in set_aside.most_common())
        why = f"{counted} ({example})" if counted else "it has no rows"
        raise InputError(f"{place} holds no pairs: {why}; expected are {_EXPECTED}")
    return PairSet(name, place, pairs, set_aside)


def _is_path(place: str) -> bool:
    looks_like_one = place.startswith((".", "/", "~")) or "://" in place or place.endswith(SUFFIXES)
    return looks_like_one or Path(place).exists()


def _stem(place: str) -> str:
    name = PurePosixPath(place.partition("?")[0].rstrip("/")).name
    suffix = next((end for end in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(end)), "")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.removesuffix(suffix)).strip("-")[:60] or "pairs"


def _rows_of_files(place: str) -> Iterator[RawRow]:
    for file in find_files(place, "name a file of pairs, or a data set of the hub, with --pairs"):
        with naming_damage(file.name):
            if file.is_parquet and not file.is_empty():
                _check_columns(file.name, parquet_columns(file))
            named = _OF_SPLIT.fullmatch(_stem(file.name))
            for raw in file_rows(file, _COLUMNS):
                yield _of_split(raw, named[1]) if named else raw


def _check_columns(name: str, there: list[str]) -> None:
    if not {"chosen", "rejected"} <= set(there):
        shown = ", ".join(f"`{one}`" for one in there[:12]) or "none"
        raise InputError(f"{name} holds no pairs: its columns are {shown}, but expected are {_EXPECTED}")


def _rows_of_hub(
    dataset: str, revision: str | None, split: str | None, hub_rows: HubRows
) -> Iterator[RawRow]:
    for one in (split,) if split else _SPLITS.get(dataset, ("train",)):
        for raw in hub_rows(dataset, revision, one, "--pairs ID@REVISION:SPLIT"):
            yield _of_split(raw, one)


def _of_split(raw: RawRow, split: str) -> RawRow:
    """A row of the prior sets, which are splits: their own column `subset` says something else."""
    if raw.value is None or split not in (*PRIOR_SETS, *NOT_AVERAGED):
        return raw
    return RawRow(raw.place, raw.number, {**raw.value, "subset": split})


# -- one row ---------------------------------------------------------------------------------------


def _pair(raw: RawRow, set_name: str) -> EvalPair:
    if raw.value is None:
        raise _NoPair(raw.reason, raw.detail)
    row = raw.value
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise _NoPair("missing_field", f"`{name}` is missing")
    opening = _opening(row.get("prompt"))
    chosen, rejected = (_side(name, row[name], opening) for name in ("chosen", "rejected"))
    subset = _subset(raw)
    own = row.get("source")
    source = own if isinstance(own, str) and own.strip() else subset or set_name
    return EvalPair(_id(raw), _utf8("source", source), subset, chosen, rejected)


def _id(raw: RawRow) -> str:
    value = (raw.value or {}).get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError(
            f"{raw.place} row {raw.number} has no id: its scores could not be told from those of other "
            "pairs; give every row an `id`, text or a whole number"
        )
    return _utf8("id", str(value))


def _subset(raw: RawRow) -> str:
    row = raw.value or {}
    if "subset" not in row:
        return ""
    if not isinstance(row["subset"], str) or not row["subset"].strip():
        raise InputError(
            f"{raw.place} row {raw.number} has no subset: RewardBench's scores are made of subsets; name it, "
            "or leave the column `subset` out and the file is a plain pair set"
        )
    return _utf8("subset", row["subset"])


def _opening(prompt: Any) -> list[Message]:
    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [{"role": "user", "content": _utf8("prompt", prompt)}]
    return _messages("prompt", prompt)


def _side(name: str, value: Any, opening: list[Message]) -> list[Message]:
    if isinstance(value, str):
        if not opening:
            raise _NoPair("wrong_type", f"`{name}` is text, and there is no `prompt` that it replies to")
        found = [*opening, Message(role="assistant", content=_utf8(name, value))]
    else:
        found = _joined(name, _messages(name, value), opening)
    if not count_user_turns(found):
        raise _NoPair("no_user_message", f"`{name}` has no message of the user")
    return fold_system(found)


def _joined(name: str, found: list[Message], opening: list[Message]) -> list[Message]:
    """A side behind its prompt, unless it holds the prompt: many sets name the last question of a whole
    conversation beside it, with or without the system's message."""
    if not opening or found[0]["role"] == "assistant":
        return [*opening, *found]
    if opening[-1]["role"] == "assistant" and found[: len(opening)] != opening:
        return [*opening, *found]
    if opening[0]["role"] == "system" and found[0]["role"] == "user":
        found = [opening[0], *found]
    asked = fold_system(opening)[-1]
    # Ends with, not equals: a system message may have been folded into it.
    if any(
        one["role"] == asked["role"] and one["content"].endswith(asked["content"])
        for one in fold_system(found)
    ):
        return found
    raise _NoPair(
        "prompt_not_in_side",
        f"`{name}` begins with a message of the {found[0]['role']} and does not hold the `prompt`",
    )


def _messages(name: str, value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else f"a {type(value).__name__}"
        raise _NoPair("wrong_type", f"`{name}` is {kind}, expected messages")
    return [_message(f"message {number} of `{name}`", one) for number, one in enumerate(value, start=1)]


def _message(where: str, value: Any) -> Message:
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        raise _NoPair("wrong_type", f"{where} is not {{role, content}} with text")
    if value.get("role") not in _ROLES:
        raise _NoPair("unknown_role", f"{where} has the role {str(value.get('role'))[:60]!r}")
    return Message(role=value["role"], content=_utf8(where, value["content"]))


def _utf8(where: str, text: str) -> str:
    """JSON can escape half of a character, which no file could hold."""
    if not is_utf8(text):
        raise _NoPair("not_utf8", f"{where} holds half of a surrogate pair")
    return text
