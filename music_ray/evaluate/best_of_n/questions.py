"""What a judge is asked: the pairs of conversations that two pickers came to and that differ.

A pair of conversations is one question, whoever picked them, for which N, and in which order: its id is their
hash, and the one with the smaller hash stands first. Equal picks are no question.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from music_ray.config import BestOfNConfig
from music_ray.evaluate.best_of_n.picks import RANDOM
from music_ray.judge.rows import Verdicts, pair_id
from music_ray.schema import Message, content_id

Row = dict[str, Any]
"""A PickedRow as it is read from Parquet."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two pickers with one N and selection."""

    first: str
    second: str
    selection: str
    n: int


@dataclass(frozen=True, slots=True)
class Question:
    """Two conversations, in the order in which they are asked about."""

    id: int
    swapped: bool
    """Whether the second picker's conversation stands first."""
    conversations: tuple[list[Message], list[Message]]


def comparisons(config: BestOfNConfig, models: Sequence[str]) -> list[Comparison]:
    """Each model with each other one, and with chance, for each selection and N."""
    pairs = list(combinations(models, 2))
    if config.against_random or len(models) == 1:
        pairs += [(model, RANDOM) for model in models]
    return [
        Comparison(first, second, selection, n)
        for first, second in pairs
        for selection in config.selections
        for n in config.n
    ]


def picks_of(row: Row, comparison: Comparison) -> tuple[Row, Row]:
    """The picks of both, as read from Parquet."""
    found = {(one["picker"], one["selection"], one["n"]): one for one in row["picks"]}

    def of(picker: str) -> Row:
        chance = found[RANDOM, "turn", 1]
        return chance if picker == RANDOM else found[picker, comparison.selection, comparison.n]

    return of(comparison.first), of(comparison.second)


def question(first: Sequence[Message], second: Sequence[Message]) -> Question | None:
    """The question that two conversations are; None when they are equal."""
    left, right = list(first), list(second)
    if left == right:
        return None
    swapped = content_id(left) > content_id(right)
    ordered = (right, left) if swapped else (left, right)
    return Question(pair_id(*ordered), swapped, ordered)


def questions_of(row: Row, asked: Sequence[Comparison]) -> Iterator[Question]:
    """The questions of one row, one for each comparison with different picks; they may repeat."""
    for comparison in asked:
        first, second = picks_of(row, comparison)
        found = question(first["conversation"], second["conversation"])
        if found is not None:
            yield found


def repeat_id(one: int) -> int:
    """The id under which the second answer to a question is kept."""
    return content_id(["repeat", one])


def repeated(ids: Iterable[int], number: int) -> list[int]:
    """Which questions are asked twice: the first by their ids, which are hashes."""
    return heapq.nsmallest(number, set(ids))


def pending(
    rows: Iterable[Row],
    asked: Sequence[Comparison],
    twice: Sequence[int],
    verdicts: Verdicts,
    *,
    retry_errors: bool,
) -> Iterator[Row]:
    """Rows of QUESTION_SCHEMA that have no verdict yet, each id once.

    Args:
        rows: with picks.
        twice: ids of the questions that are asked a second time.
        retry_errors: also those on which the engine did not answer before.
    """
    again = ("error", None) if retry_errors else (None,)
    second_time, seen = set(twice), set()
    for row in rows:
        for one in questions_of(row, asked):
            ids = (one.id, repeat_id(one.id)) if one.id in second_time else (one.id,)
            for id_ in ids:
                if id_ in seen or verdicts.of(id_) not in again:
                    continue
                seen.add(id_)
                left, right = one.conversations
                yield {"id": id_, "seed_id": row["id"], "chosen": left, "rejected": right}
