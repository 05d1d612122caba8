"""Pairs and refused rollouts as a person reads them: the shared beginning once, then turn by turn.

This module picks rows from the run folder and lays two branches side by side. It does not know
whether they end up on a page or in a terminal.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from music_ray.report.jsonlines import naming_damage, read_objects
from music_ray.rundir import RunDir
from music_ray.schema import (
    Contrast,
    Message,
    PreferencePair,
    Rollout,
    content_id,
    count_user_turns,
    first_difference,
    pair_from_row,
    rollout_from_row,
    split_turns,
)

ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn after the shared beginning, on both sides."""

    number: int
    """Counted from 1 at the start of the conversation."""
    shared: list[Message]
    """What both sides of this turn begin with: the user message they both answer, where they part."""
    chosen: list[Message]
    rejected: list[Message]
    contrast: Contrast | None
    """How the rejected side of this turn was spoiled."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Two branches laid out to be read."""

    id: str
    source: str
    reason: str
    """'accepted', or why the rollout gave no pair."""
    detail: str
    num_turns: int
    parting_turn: int
    """The turn in which the sides part; 0 when there are no two sides to compare."""
    shared: list[Message]
    turns: list[Turn]
    scores: list[tuple[str, float, float]] = field(default_factory=list)
    """(model, chosen score, rejected score), for pairs that were held out."""

    @property
    def spoiled_turns(self) -> list[int]:
        """Numbers of the turns with a contrast."""
        return [turn.number for turn in self.turns if turn.contrast is not None]


def read_pair(pair: PreferencePair) -> Reading:
    """Lays out an accepted pair."""
    shift = pair.branch_turn - min((contrast.turn for contrast in pair.contrasts), default=0)
    contrasts = {contrast.turn + shift: contrast for contrast in pair.contrasts}
    parting, shared, turns = _lay_out(pair.chosen, pair.rejected, pair.branch_turn, contrasts)
    return Reading(
        id=pair.id,
        source=pair.source,
        reason=ACCEPTED,
        detail="",
        num_turns=pair.num_turns,
        parting_turn=parting,
        shared=shared,
        turns=turns,
    )


def read_rollout(rollout: Rollout, reason: str, detail: str) -> Reading:
    """Lays out a rollout that gave no pair; an error row may hold its context alone."""
    # Generated turn 1 is the reply to the last user message of the context.
    before = count_user_turns(rollout.context) - 1
    contrasts = {contrast.turn + before: contrast for contrast in rollout.contrasts}
    chosen, rejected = rollout.chosen or rollout.context, rollout.rejected or rollout.context
    branch_turn = before + rollout.first_contrast_turn if rollout.first_contrast_turn else 0
    parting, shared, turns = _lay_out(chosen, rejected, branch_turn, contrasts)
    return Reading(
        id=str(rollout.id),
        source=rollout.source,
        reason=reason,
        detail=detail,
        num_turns=count_user_turns(chosen),
        parting_turn=parting,
        shared=shared,
        turns=turns,
    )


def _lay_out(
    chosen: list[Message], rejected: list[Message], branch_turn: int, contrasts: dict[int, Contrast]
) -> tuple[int, list[Message], list[Turn]]:
    """The parting turn, the messages before it, and the turns from there on."""
    # The earlier of the recorded and the real turn: neither a difference nor a contrast may be hidden.
    parting = min((turn for turn in (branch_turn, first_difference(chosen, rejected)) if turn), default=0)
    left, right = split_turns(chosen), split_turns(rejected)
    if parting == 0:
        return 0, chosen, []
    shared = [message for turn in left[: parting - 1] for message in turn]
    turns: list[Turn] = []
    nothing: list[Message] = []
    rest = zip_longest(left[parting - 1 :], right[parting - 1 :], fillvalue=nothing)
    for number, (one, other) in enumerate(rest, start=parting):
        same = _common_user_message(one, other) if number == parting else 0
        turns.append(Turn(number, one[:same], one[same:], other[same:], contrasts.get(number)))
    return parting, shared, turns


def _common_user_message(one: list[Message], other: list[Message]) -> int:
    """1 when both sides of a turn begin with the same user message, else 0."""
    return int(bool(one and other) and one[0] == other[0] and one[0]["role"] == "user")


# -- which rows ------------------------------------------------------------------------------------


def first_by_hash(ids: Iterable[Any], limit: int) -> list[Any]:
    """The same sample on every machine, and one that growing a run changes little."""
    return heapq.nsmallest(limit, ids, key=lambda one: content_id(str(one)))


def pair_ids(run: RunDir) -> list[str]:
    """Ids of all accepted pairs; only the id column is read."""
    return [row["id"] for row in run.read_rows("pairs", columns=["id"])]


def read_pairs(run: RunDir, ids: list[str]) -> list[Reading]:
    """The accepted pairs with these ids, in this order; unknown ids are left out."""
    found = {row["id"]: row for row in _matching_rows(run, "pairs", ids, pa.string())}
    return [read_pair(pair_from_row(found[one])) for one in ids if one in found]


def refusals(run: RunDir) -> list[dict[str, Any]]:
    """The objects of pairs/gates.jsonl: the rollouts that gave no pair, each with its reason.

    Raises:
        InputError: an id in it is no rollout's.
    """
    found = [one for one in read_objects(run, "pairs", "gates.jsonl").objects if "id" in one]
    with naming_damage("pairs/gates.jsonl", "remove the line with that id"):
        pa.array([int(one["id"]) for one in found], pa.int64())
    return found


def few_of_each_reason(refused: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Refusals that show every reason before any reason twice."""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(refused, key=lambda row: content_id(str(row["id"]))):
        by_reason.setdefault(str(row.get("reason", "")), []).append(row)
    rounds = zip_longest(*(by_reason[reason] for reason in sorted(by_reason)))
    return [row for one_round in rounds for row in one_round if row is not None][:limit]


def read_refused(run: RunDir, refused: list[dict[str, Any]]) -> list[Reading]:
    """The rollouts behind these refusals, in this order; rollouts that are gone are left out."""
    rows = _matching_rows(run, "rollouts", [int(row["id"]) for row in refused], pa.int64())
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["id"], row)  # An id that two shards hold counts once: the first row.
    return [
        read_rollout(
            rollout_from_row(found[int(row["id"])]), str(row.get("reason", "")), str(row.get("detail") or "")
        )
        for row in refused
        if int(row["id"]) in found
    ]


def _matching_rows(run: RunDir, folder: str, ids: list[Any], kind: pa.DataType) -> Iterator[dict[str, Any]]:
    """Rows with these ids; the other rows of a large set never become Python objects."""
    wanted = pa.array(ids, kind)
    for path in run.parquet_files(folder) if ids else []:
        with run.open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.filter(pc.is_in(batch["id"], value_set=wanted)).to_pylist()
