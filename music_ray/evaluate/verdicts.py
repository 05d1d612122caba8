"""A judge's recorded verdicts: read from files, and matched to the pairs that they are on.

A row holds the `id` of a pair, or the hash of its two conversations that a run's own verdicts are kept under
(music_ray.judge.rows); its `outcome`; and perhaps a `turn`: then the verdict is on both conversations up to
and with that turn, counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from music_ray.data_files import RawRow, file_rows, find_files, naming_damage
from music_ray.errors import InputError
from music_ray.evaluate.agreement import OUTCOMES
from music_ray.evaluate.pair_sets import PairSet
from music_ray.judge.rows import pair_id
from music_ray.schema import Message, split_turns

_COLUMNS = ("id", "outcome", "turn", "status")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a judge said, by the pair's id as text and the turn; the first of several counts."""

    outcomes: dict[tuple[str, int | None], str]
    """The turn is None of a verdict on whole conversations."""
    unanswered: int
    """Rows without an answer of the judge."""
    conflicting: int = 0
    """Rows that say something else of a pair than the first row on it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict on a pair of a set."""

    index: int
    """Of the pair in its set."""
    turn: int | None
    outcome: str


def read_verdicts(place: str) -> Verdicts:
    """The verdicts of a file or folder.

    Raises:
        InputError: nothing is there, it is damaged, or a row has no id or an unknown outcome or turn.
    """
    outcomes: dict[tuple[str, int | None], str] = {}
    unanswered = conflicting = 0
    for raw in _rows(place):
        row = raw.value or {}
        if row.get("status") == "error":
            unanswered += 1
            continue
        outcome = _outcome(raw)
        conflicting += outcomes.setdefault((_id(raw), _turn(raw)), outcome) != outcome
    if not outcomes:
        raise InputError(f"{place} holds no verdict: name a file with `id` and `outcome`")
    return Verdicts(outcomes, unanswered, conflicting)


def _rows(place: str) -> Iterator[RawRow]:
    for file in find_files(place, "name the judge's verdicts with --verdicts"):
        with naming_damage(file.name):
            for raw in file_rows(file, _COLUMNS):
                if raw.value is None:
                    raise InputError(f"{_where(raw)} can't be read ({raw.detail}): mend it or take it out")
                yield raw


def _where(raw: RawRow) -> str:
    return f"{raw.place} row {raw.number}"


def _id(raw: RawRow) -> str:
    value: Any = (raw.value or {}).get("id")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{_where(raw)} has no id: give the id of the pair that the verdict is on")
    return str(value)


def _turn(raw: RawRow) -> int | None:
    value: Any = (raw.value or {}).get("turn")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{_where(raw)} has the turn {value!r}: turns are counted from 1")
    return value


def _outcome(raw: RawRow) -> str:
    value: Any = (raw.value or {}).get("outcome")
    if value not in OUTCOMES:
        raise InputError(
            f"{_where(raw)} has the outcome {value!r}: it must be one of {', '.join(OUTCOMES)} (invalid: the "
            "judge's reply could not be read)"
        )
    return str(value)


def match(verdicts: Verdicts, pairs: PairSet) -> list[Judged]:
    """The verdicts that are on pairs of a set, in the order of the pairs and their turns.

    Raises:
        InputError: two pairs share an id that a verdict names, or a pair has no such turn.
    """
    turns: dict[str, list[tuple[int | None, str]]] = {}
    for (one, turn), outcome in verdicts.outcomes.items():
        turns.setdefault(one, []).append((turn, outcome))
    found: list[Judged] = []
    named: set[str] = set()
    for index, pair in enumerate(pairs.pairs):
        if pair.id in turns:
            if pair.id in named:
                raise InputError(
                    f"two pairs of {pairs.place} have the id {pair.id}, which a verdict names: give each "
                    "pair an id of its own"
                )
            named.add(pair.id)
        key = pair.id if pair.id in turns else str(pair_id(pair.chosen, pair.rejected))
        said = sorted(turns.get(key, ()), key=lambda one: one[0] or 0)
        shorter = min(len(split_turns(pair.chosen)), len(split_turns(pair.rejected)))
        for turn, outcome in said:
            if turn is not None and turn > shorter:
                raise InputError(
                    f"a verdict is on turn {turn} of pair {pair.id} of {pairs.place}, which has {shorter}: "
                    "correct the turn"
                )
            found.append(Judged(index, turn, outcome))
    return found


def check_apart(verdicts: Verdicts, sets: Sequence[PairSet]) -> None:
    """Refuses verdicts whose id different pairs of two sets have: on which of them they are is not known.

    Raises:
        InputError: there are such verdicts.
    """
    named = {one for one, _ in verdicts.outcomes}
    first: dict[str, tuple[int, PairSet]] = {}
    for pairs in sets:
        for pair in pairs.pairs:
            if pair.id in named:
                content = pair_id(pair.chosen, pair.rejected)
                other, where = first.setdefault(pair.id, (content, pairs))
                if other != content and where is not pairs:
                    raise InputError(
                        f"{where.place} and {pairs.place} both have a pair with the id {pair.id}, which a "
                        "verdict names: evaluate the set that the verdicts are on by itself, or give the "
                        "pairs of the other one ids of their own"
                    )


def up_to_turn(messages: list[Message], turn: int) -> list[Message]:
    """A conversation up to and with a turn, counted from 1."""
    return [message for one in split_turns(messages)[:turn] for message in one]
