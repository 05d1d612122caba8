"""The mix stage: D_aug = D and D_MUSIC together, and the held-out suites that the evaluation reads.

Reads seeds/ and pairs/, writes mix/. It does not know how pairs are made or trained on.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from music_ray.config import RunConfig
from music_ray.errors import StageError
from music_ray.generate.compact import CompactRows
from music_ray.generate.staging import PartWriter, StagedFolder
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import MARGIN_PAIR_SCHEMA, PAIR_SCHEMA, content_id, pair_content, unit_interval


class _Mix:
    """The training pairs so far; an id is taken once."""

    def __init__(self, run_seed: int) -> None:
        self.run_seed = run_seed
        self.rows = CompactRows()
        self.ids: set[str] = set()
        self.counts: Counter[str] = Counter()

    def add(self, row: dict[str, Any], name: str) -> None:
        if row["id"] in self.ids:
            self.counts["duplicates"] += 1
            return
        self.ids.add(row["id"])
        self.counts[name] += 1
        # D and D_MUSIC are interleaved by a hash of the id: the same order on every machine.
        self.rows.add((content_id(["mix_order", self.run_seed, row["id"]]), row["id"]), row)


def run_mix(run: RunDir) -> dict[str, Any]:
    """Writes mix/train-*.parquet and mix/held_out/{preferences,music}.parquet; a rerun replaces them.

    Returns:
        counts (see docs/reference/run-folder.md), notes for the reader, and a digest of the output.

    Raises:
        StageError: the stages before it have not run, or no pair is left to train on.
    """
    config = run.config
    if not run.parquet_files("seeds", "preferences", "train"):
        raise StageError(f"no preference pairs in {run.display('seeds')}: run `music-ray seeds` first")
    held_out = held_out_conversations(run)
    mix = _Mix(config.seed)
    schema = _pair_schema(run)
    with StagedFolder(run, "mix", owned=("train-*.parquet", "held_out/*")) as folder:
        digest = _write_preferences_suite(run, folder, schema)
        num_held_out = len(digest)
        digest += _take_music(run, folder, mix, held_out)
        _take_preferences(run, mix, held_out)
        _check(run, mix)
        writer = PartWriter(folder, schema, num_rows=len(mix.rows))
        for row in mix.rows.in_order():
            writer.add(row)
            digest.append(_digest_line("train", row))
        writer.close()
        folder.publish()
    counts = {
        "preferences": mix.counts["preferences"],
        "music": mix.counts["music"],
        "held_out_preferences": num_held_out,
        "held_out_music": mix.counts["held_out_music"],
        "preferences_left_out": mix.counts["preferences_left_out"],
        "duplicates": mix.counts["duplicates"],
    }
    return {"counts": counts, "notes": _notes(config, counts), "output": digest_ids(digest)}


def held_out_conversations(run: RunDir) -> set[int]:
    """The seed conversations whose MUSIC pairs are kept for evaluation (mix.held_out_fraction, by hash).

    They go by the seeds and not by the pairs that came out, so that a baseline without MUSIC pairs
    trains on the same part of D.
    """
    config = run.config
    return {
        row["conversation"]
        for row in run.read_rows("seeds", "contexts", columns=["conversation"])
        if unit_interval("mix_held_out", config.seed, row["conversation"]) < config.mix.held_out_fraction
    }


def _pair_schema(run: RunDir) -> pa.Schema:
    """The mix has a column of margins only where a pair of D has one."""
    rows = run.read_rows("seeds", "preferences", columns=["margin"])
    return MARGIN_PAIR_SCHEMA if any(row.get("margin") is not None for row in rows) else PAIR_SCHEMA


def _write_preferences_suite(run: RunDir, folder: StagedFolder, schema: pa.Schema) -> list[str]:
    suite = PartWriter(folder, schema, "held_out", single="preferences.parquet")
    digest = []
    for row in run.read_rows("seeds", "preferences", "held_out"):
        suite.add(row)
        digest.append(_digest_line("held_out", row))
    suite.close()
    return digest


def _take_music(run: RunDir, folder: StagedFolder, mix: _Mix, held_out: set[int]) -> list[str]:
    """Sorts the MUSIC pairs into the suite and, if the mix has them, into the mix."""
    suite = PartWriter(folder, PAIR_SCHEMA, "held_out", single="music.parquet")
    digest = []
    for row in run.read_rows("pairs"):
        if row["conversation"] in held_out:
            suite.add(row)
            digest.append(_digest_line("held_out", row))
        elif run.config.mix.include_music:
            mix.add(row, "music")
    suite.close()
    mix.counts["held_out_music"] = suite.num_rows
    return digest


def _take_preferences(run: RunDir, mix: _Mix, held_out: set[int]) -> None:
    if not run.config.mix.include_preferences:
        return
    for row in run.read_rows("seeds", "preferences", "train"):
        if row["conversation"] in held_out:
            mix.counts["preferences_left_out"] += 1
        else:
            mix.add(row, "preferences")


def _check(run: RunDir, mix: _Mix) -> None:
    config = run.config.mix
    if config.include_music and not mix.counts["music"]:
        if mix.counts["held_out_music"]:
            raise StageError(
                f"all {mix.counts['held_out_music']} MUSIC pairs are held out (mix.held_out_fraction is "
                f"{config.held_out_fraction}): lower it, or make more seeds"
            )
        raise StageError(
            f"no MUSIC pair to mix in: {_refusals(run)}; read {run.display('pairs', 'gates.jsonl')}, then "
            "change the model, the prompts or pairs.gates, or set mix.include_music=false"
        )
    if not len(mix.rows):
        raise StageError(
            f"no pair of D is left to train on ({mix.counts['preferences_left_out']} share a held-out "
            "conversation): lower mix.held_out_fraction, or name more data"
        )


def _refusals(run: RunDir) -> str:
    """Which gates refused how many rollouts."""
    if not run.exists("pairs", "gates.jsonl"):
        return f"{run.display('pairs')} is empty, run `music-ray pairs` first"
    lines = [line for line in run.read_text("pairs", "gates.jsonl").split("\n") if line]
    reasons = Counter(json.loads(line)["reason"] for line in lines)
    counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return f"{len(lines)} rollouts were refused ({counted})" if lines else "there were no rollouts"


def _digest_line(part: str, row: dict[str, Any]) -> str:
    return f"{part} {row['id']} {pair_content(row)}"


def _notes(config: RunConfig, counts: dict[str, int]) -> list[str]:
    notes = []
    if config.mix.held_out_fraction and config.mix.include_music and not counts["held_out_music"]:
        notes.append(
            f"no MUSIC pair is held out (mix.held_out_fraction is {config.mix.held_out_fraction}): raise it "
            "to evaluate on MUSIC pairs"
        )
    if counts["duplicates"]:
        notes.append(f"{counts['duplicates']} pairs had the id of another pair and were left out")
    return notes
