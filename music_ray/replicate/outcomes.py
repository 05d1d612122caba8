"""outcomes/: what became of the arms of each training seed, in files of some kilobytes.

    ARM-SEED.parquet     which pairs of the suites this reward model gets right
    picks-SEED.parquet   what A1 picked against what A0 picked

What is there is neither trained nor scored again. So models may be removed, a replication may go on on
another machine, and the outcomes can be published and read again without any of the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from music_ray.errors import InputError
from music_ray.replicate.scoring import SuiteFacts

Outcome = dict[str, np.ndarray]
"""For each suite whether each pair is right, [n] bool in the order of the suite's file."""


def outcome_file(out: Path, arm: str, seed: int) -> Path:
    """Of one arm of a training seed."""
    return out / "outcomes" / f"{arm}-{seed}.parquet"


def picks_file(out: Path, seed: int) -> Path:
    """Of best-of-N with the models of a training seed."""
    return out / "outcomes" / f"picks-{seed}.parquet"


def write_outcome(file: Path, facts: Mapping[str, SuiteFacts], right: Outcome) -> None:
    """Writes an arm's outcome, whole or not at all."""
    columns: dict[str, list[object]] = {"suite": [], "id": [], "right": []}
    for suite, values in right.items():
        columns["suite"] += [suite] * len(values)
        columns["id"] += facts[suite].ids
        columns["right"] += values.tolist()
    kept(file, lambda: pa.table(columns))


def read_outcome(file: Path, facts: Mapping[str, SuiteFacts]) -> Outcome:
    """What write_outcome wrote.

    Raises:
        InputError: it is about other pairs than the suites hold.
    """
    table = pq.read_table(file)
    keys = zip(table["suite"].to_pylist(), table["id"].to_pylist(), strict=True)
    right = dict(zip(keys, table["right"].to_pylist(), strict=True))
    wanted = {(suite, one) for suite, found in facts.items() for one in found.ids}
    if right.keys() != wanted:
        missing = len(wanted - right.keys())
        raise InputError(
            f"{file} lacks {missing} of the suites' {len(wanted)} pairs and has {len(right.keys() - wanted)} "
            "that they don't hold: it is of other suites; remove it, or put their files back"
        )
    return {suite: np.array([right[suite, one] for one in found.ids]) for suite, found in facts.items()}


def kept(file: Path, make: Callable[[], pa.Table]) -> pa.Table:
    """The table of a file, which is made and written if it is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".partial-{file.name}")
        pq.write_table(make(), partial, compression="zstd")
        partial.rename(file)
    return pq.read_table(file)
