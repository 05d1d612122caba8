"""Which pairs of the suites each reward model gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from music_ray.evaluate.accuracy import is_right
from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.sides import Tools
from music_ray.replicate.scale import NATURAL
from music_ray.schema import content_id


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """What is known of a suite's pairs without a model."""

    ids: list[str]
    clusters: np.ndarray
    """[n] integers: pairs of one conversation seed, or of S2 of one first message, are one cluster."""
    mistakes: np.ndarray
    """[n] text."""
    error_turns: np.ndarray
    num_turns: np.ndarray


@dataclass(frozen=True, slots=True)
class Suites:
    """The suites of a replication, by name."""

    files: dict[str, Path]
    facts: dict[str, SuiteFacts]

    @classmethod
    def of(cls, files: dict[str, Path]) -> Suites:
        """With the facts of the files."""
        return cls(files, {name: suite_facts(file) for name, file in files.items()})


def suite_facts(file: Path) -> SuiteFacts:
    """The facts of a suite's file."""
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    keys = [
        content_id(row["chosen"][0]["content"]) if row["source"] in NATURAL else row["seed"] for row in rows
    ]
    return SuiteFacts(
        ids=[row["id"] for row in rows],
        clusters=np.unique(np.array(keys, dtype=np.int64), return_inverse=True)[1],
        mistakes=np.array([row["mistake"] for row in rows]),
        error_turns=np.array([row["error_turn"] for row in rows]),
        num_turns=np.array([row["num_turns"] for row in rows]),
    )


def score_suites(
    model: Path, suites: Suites, out: Path, tools: Tools, words: Sequence[str]
) -> dict[str, np.ndarray]:
    """For each suite whether each pair is right, [n] bool in the order of the suite's file; a tie is wrong.

    All suites are scored as one set: an engine starts once for each model.

    Raises:
        MusicRayError: as `music-ray evaluate`.
    """
    together = _together(suites.files)
    done = evaluate_models([str(model)], [str(together)], str(out), None, list(words), tools)
    # Scores of a model that was here before lie beside these.
    scores = out / together.stem / f"scores-{done['models'][0]['slug']}.parquet"
    table = pq.read_table(scores, columns=["id", "chosen_score", "rejected_score"])
    sides = np.column_stack([table[side].to_numpy() for side in ("chosen_score", "rejected_score")])
    right = dict(zip(table["id"].to_pylist(), is_right(sides).tolist(), strict=True))
    return {name: np.array([right[one] for one in found.ids]) for name, found in suites.facts.items()}


def _together(suites: dict[str, Path]) -> Path:
    """One file of all suites, beside them; their ids begin with the suite's name."""
    columns = ["id", "source", "chosen", "rejected"]
    tables = [pq.read_table(file, columns=columns) for file in suites.values()]
    file = next(iter(suites.values())).with_name("all-suites.parquet")
    partial = file.with_name(f".partial-{file.name}")
    pq.write_table(pa.concat_tables(tables), partial)
    partial.rename(file)
    return file
