"""The pairs stage: rollouts that pass the quality gates become preference pairs with a dataset card.

Reads rollouts/shards and pairs/excluded.txt, writes pairs/. It does not know how rollouts are made.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from music_ray.config import GatesConfig
from music_ray.errors import InputError, StageError
from music_ray.generate.card import CardFacts, dataset_card
from music_ray.generate.compact import CompactRows
from music_ray.generate.gates import Refusal, first_refusal
from music_ray.generate.staging import PartWriter, StagedFolder
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import (
    PAIR_SCHEMA,
    PreferencePair,
    Rollout,
    content_id,
    count_user_turns,
    first_difference,
    rollout_from_row,
)

PREFIX = "music-"
"""A pair's id is this and the id of its seed."""


@dataclass
class _Sorted:
    """The rollouts, by what becomes of them."""

    ids: set[int] = field(default_factory=set)
    duplicate_rows: int = 0
    other_seeds: int = 0
    """Rows of seeds that a larger run had (seeds.num_seeds was lowered)."""
    accepted: CompactRows = field(default_factory=CompactRows)
    refused: dict[int, Refusal] = field(default_factory=dict)
    facts: CardFacts = field(default_factory=CardFacts)
    digest: list[str] = field(default_factory=list)


def run_pairs(run: RunDir) -> dict[str, Any]:
    """Writes pairs/train-*.parquet, pairs/gates.jsonl and the dataset card; a rerun replaces them.

    Returns:
        counts (see docs/reference/run-folder.md), notes for the reader, and a digest of the output.

    Raises:
        StageError: there are no rollouts.
        InputError: pairs/excluded.txt names something that is no id.
    """
    excluded = read_excluded(run)
    found = _sort_rollouts(run, excluded)
    if not found.ids:
        raise StageError(
            f"no rollouts in {run.display('rollouts', 'shards')}: run `music-ray generate` first"
        )
    reasons = dict(sorted(Counter(refusal.reason for refusal in found.refused.values()).items()))
    with StagedFolder(run, "pairs", owned=("train-*.parquet", "gates.jsonl", "README.md")) as folder:
        writer = PartWriter(folder, PAIR_SCHEMA, num_rows=len(found.accepted))
        for row in found.accepted.in_order():
            writer.add(row)
            found.facts.count_pair(row)
        writer.close()
        folder.write_text(_gate_lines(found.refused), "gates.jsonl")
        folder.write_text(dataset_card(run.config, found.facts, len(found.ids), reasons), "README.md")
        folder.publish()
    counts: dict[str, Any] = {
        "rollouts": len(found.ids),
        "accepted": len(found.accepted),
        "refused": reasons,
        "duplicate_rows": found.duplicate_rows,
    }
    return {"counts": counts, "notes": _notes(found, excluded), "output": digest_ids(found.digest)}


def read_excluded(run: RunDir) -> set[int]:
    """The ids of pairs/excluded.txt: one a line, with or without 'music-', '#' begins a comment.

    Raises:
        InputError: a line is no id.
    """
    if not run.exists("pairs", "excluded.txt"):
        return set()
    ids = set()
    for number, line in enumerate(run.read_text("pairs", "excluded.txt").split("\n"), start=1):
        text = line.partition("#")[0].strip().removeprefix(PREFIX)
        if not text:
            continue
        if not (text.isascii() and text.isdigit()):
            raise InputError(
                f"{run.display('pairs', 'excluded.txt')} line {number}: {text[:60]!r} is no id of a pair: "
                f"write one id a line, such as {PREFIX}123, and comments after '#'"
            )
        ids.add(int(text))
    return ids


def music_pair(rollout: Rollout) -> PreferencePair:
    """The preference pair that an accepted rollout is."""
    return PreferencePair(
        id=f"{PREFIX}{rollout.id}",
        source=rollout.source,
        origin="D_MUSIC",
        conversation=rollout.conversation,
        num_turns=count_user_turns(rollout.chosen),
        branch_turn=first_difference(rollout.chosen, rollout.rejected),
        chosen=rollout.chosen,
        rejected=rollout.rejected,
        seed_id=rollout.id,
        contrasts=rollout.contrasts,
    )


def _sort_rollouts(run: RunDir, excluded: set[int]) -> _Sorted:
    found = _Sorted()
    seeds = {row["id"] for row in run.read_rows("seeds", "contexts", columns=["id"])}
    for row in run.read_rows("rollouts", "shards"):
        if seeds and row["id"] not in seeds:
            found.other_seeds += 1
            continue
        rollout = rollout_from_row(row)
        if rollout.id in found.ids:
            # A task that was tried again after its shard was written: the first row counts.
            found.duplicate_rows += 1
            continue
        found.ids.add(rollout.id)
        found.facts.count_rollout(rollout)
        refusal = _refusal(rollout, excluded, run.config.pairs.gates)
        if refusal is not None:
            found.refused[rollout.id] = refusal
            continue
        pair = music_pair(rollout)
        found.accepted.add(pair.id, asdict(pair))
        found.digest.append(f"{pair.id} {content_id([pair.chosen, pair.rejected])}")
    return found


def _refusal(rollout: Rollout, excluded: set[int], gates: GatesConfig) -> Refusal | None:
    if rollout.status == "error":
        return Refusal(rollout.reason or "error", rollout.detail)
    if rollout.id in excluded:
        return Refusal("excluded", "named in pairs/excluded.txt")
    return first_refusal(rollout, gates)


def _gate_lines(refused: dict[int, Refusal]) -> str:
    lines = [
        json.dumps({"id": one, "reason": refusal.reason, "detail": refusal.detail}, ensure_ascii=False)
        for one, refusal in sorted(refused.items())
    ]
    return "".join(line + "\n" for line in lines)


def _notes(found: _Sorted, excluded: set[int]) -> list[str]:
    notes = []
    if unknown := excluded - found.ids:
        notes.append(
            f"pairs/excluded.txt names {len(unknown)} ids that no rollout has, e.g. {PREFIX}{min(unknown)}"
        )
    if not len(found.accepted):
        notes.append("no rollout passed the quality gates: read pairs/gates.jsonl")
    if found.other_seeds:
        notes.append(
            f"{found.other_seeds} rollouts are of seeds that are not in seeds/ any more: they wait in "
            "rollouts/shards until seeds.num_seeds is raised again"
        )
    if found.duplicate_rows:
        notes.append(f"{found.duplicate_rows} rows of rollouts/shards repeat an id: the first row counts")
    return notes
