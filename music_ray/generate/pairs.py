"""The pairs stage: rollouts that pass the quality gates become preference pairs with a dataset card.

Reads rollouts/shards and pairs/excluded.txt, writes pairs/, and has a judge asked where one is
configured. It does not know how rollouts are made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from music_ray.config import RunConfig
from music_ray.errors import InputError, StageError
from music_ray.generate.card import CardFacts, dataset_card
from music_ray.generate.compact import CompactRows
from music_ray.generate.gates import Jury, Refusal
from music_ray.generate.judging import judge_pending
from music_ray.generate.staging import PartWriter, StagedFolder
from music_ray.jobs.shards import read_index, read_rows
from music_ray.judge.own_words import own_words
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

    jury: Jury
    ids: set[int] = field(default_factory=set)
    duplicate_rows: int = 0
    other_seeds: int = 0
    """Rows of seeds that a larger run had (seeds.num_seeds was lowered)."""
    candidates: CompactRows = field(default_factory=CompactRows)
    """What passes the gates that look at one rollout."""
    refused: dict[int, Refusal] = field(default_factory=dict)
    facts: CardFacts = field(default_factory=CardFacts)
    digests: dict[int, str] = field(default_factory=dict)

    @property
    def num_accepted(self) -> int:
        """How many rollouts give a pair."""
        return len(self.digests)

    def accepted(self) -> Iterator[dict[str, Any]]:
        """The pairs, in order of their ids."""
        return (row for row in self.candidates.in_order() if row["seed_id"] not in self.refused)


def run_pairs(run: RunDir) -> dict[str, Any]:
    """Writes pairs/train-*.parquet, pairs/gates.jsonl and the dataset card; a rerun replaces them.

    Returns:
        counts (see docs/reference/run-folder.md), notes for the reader, and a digest of the output.

    Raises:
        StageError: there are no rollouts, a gate of the user's own failed, or the judge fails too often.
        InputError: pairs/excluded.txt names something that is no id, or an evaluation set, a plug-in of
            the gates or the judge's engine can't be had.
    """
    excluded = read_excluded(run)
    found = _sort_and_judge(run, excluded)
    if not found.ids:
        raise StageError(
            f"no rollouts in {run.display('rollouts', 'shards')}: run `music-ray generate` first"
        )
    reasons = dict(sorted(Counter(refusal.reason for refusal in found.refused.values()).items()))
    with StagedFolder(run, "pairs", owned=("train-*.parquet", "gates.jsonl", "README.md")) as folder:
        writer = PartWriter(folder, PAIR_SCHEMA, num_rows=found.num_accepted)
        for row in found.accepted():
            writer.add(row)
            found.facts.count_pair(row)
        writer.close()
        folder.write_text(_gate_lines(found), "gates.jsonl")
        folder.write_text(dataset_card(run.config, found.facts, len(found.ids), reasons), "README.md")
        folder.publish()
    counts: dict[str, Any] = {
        "rollouts": len(found.ids),
        "accepted": found.num_accepted,
        "refused": reasons,
        "duplicate_rows": found.duplicate_rows,
        "gates": found.jury.counts(reasons),
    }
    if overlaps := found.jury.overlaps:
        counts["eval_overlap"] = overlaps
    facts: dict[str, Any] = {}
    if judged := found.jury.judged:
        counts["judge"] = judged.counts()
        facts["judge"] = judged.facts()
    return {
        "counts": counts,
        **facts,
        "notes": [*_notes(found, excluded), *_judging_itself(run.config)],
        "output": digest_ids(list(found.digests.values())),
    }


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


def _sort_and_judge(run: RunDir, excluded: set[int]) -> _Sorted:
    """Sorts until every pair that is left has its verdict, where there is a judge.

    Once where all verdicts are there. Else again after they were made, and a third time where a pair that
    was refused now had kept a near-duplicate out, which then takes its place.
    """
    found = _sort_rollouts(run, excluded)
    retry_errors = run.config.generate.retry_errors
    while (judged := found.jury.judged) is not None:
        if not judge_pending(run, judged.verdicts, found.accepted(), retry_errors=retry_errors):
            break
        retry_errors = False  # what fails again has been asked about
        del found, judged  # not two sets of rollouts in memory
        found = _sort_rollouts(run, excluded)
    return found


def _sort_rollouts(run: RunDir, excluded: set[int]) -> _Sorted:
    found = _Sorted(Jury(run.config.pairs.gates, run))
    found.facts.licence_records = run.manifest()["stages"].get("seeds", {}).get("licences")
    whole = read_index(run, ("rollouts", "shards"))
    seeds = run.read_ids("seeds", "contexts")
    index = whole.only(np.sort(seeds)) if len(seeds) else whole
    found.duplicate_rows = whole.duplicate_rows
    found.other_seeds = len(whole.ids) - len(index.ids)
    for row in read_rows(run, index):
        rollout = rollout_from_row(row)
        found.ids.add(rollout.id)
        found.facts.count_rollout(rollout)
        refusal = _refusal(rollout, excluded, found.jury)
        if refusal is not None:
            found.refused[rollout.id] = refusal
            continue
        pair = music_pair(rollout)
        found.candidates.add(pair.id, asdict(pair))
        found.digests[rollout.id] = f"{pair.id} {content_id([pair.chosen, pair.rejected])}"
    for one, refusal in found.jury.late_refusals().items():
        found.refused[one] = refusal
        del found.digests[one]
    return found


def _refusal(rollout: Rollout, excluded: set[int], jury: Jury) -> Refusal | None:
    if rollout.status == "error":
        return Refusal(rollout.reason or "error", rollout.detail)
    by_hand = Refusal("excluded", "named in pairs/excluded.txt") if rollout.id in excluded else None
    return jury.hear(rollout, by_hand)


def _gate_lines(found: _Sorted) -> str:
    """One JSON object a refused rollout; `also` names the gates that it would fail besides."""
    lines = [
        json.dumps(
            {"id": one, "reason": refusal.reason, "detail": refusal.detail, "also": found.jury.also(one)},
            ensure_ascii=False,
        )
        for one, refusal in sorted(found.refused.items())
    ]
    return "".join(line + "\n" for line in lines)


def _judging_itself(config: RunConfig) -> list[str]:
    judge = config.pairs.judge.engine
    if judge is None:
        return []
    roles = {
        "assistant": config.engine,
        "user simulator": config.user.engine or config.engine,
        "model that writes contrasts": config.contrast.engine or config.engine,
    }
    return own_words("pairs.judge", judge, roles)


def _notes(found: _Sorted, excluded: set[int]) -> list[str]:
    notes = []
    if unknown := excluded - found.ids:
        notes.append(
            f"pairs/excluded.txt names {len(unknown)} ids that no rollout has, e.g. {PREFIX}{min(unknown)}"
        )
    if not found.num_accepted:
        notes.append("no rollout passed the quality gates: read pairs/gates.jsonl")
    if found.other_seeds:
        notes.append(
            f"{found.other_seeds} rollouts are of seeds that are not in seeds/ any more: they wait in "
            "rollouts/shards until seeds.num_seeds is raised again"
        )
    if found.duplicate_rows:
        notes.append(f"{found.duplicate_rows} rows of rollouts/shards repeat an id: the first ok row counts")
    if judged := found.jury.judged:
        notes += judged.notes()
    notes += [f"the gate {name} is off: {what}" for name, what in found.jury.missing.items()]
    return notes
