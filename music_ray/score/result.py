"""From shards to the files that a user reads: one row a conversation, in the order of the input.

Holds 40 bytes a conversation in memory, and the explanations of those that could not be scored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from music_ray.errors import StageError
from music_ray.jobs.shards import ShardIndex, is_among, read_batches, read_index
from music_ray.rundir import RunDir
from music_ray.score.rows import result_schema

INPUTS, SHARDS, RESULT = "in", "shards", "scores"
"""Folders below the one that --out names."""


@dataclass
class _Scores:
    """What the shards say, in order of id."""

    ids: np.ndarray
    score: np.ndarray
    """float64, NaN where there is none."""
    num_tokens: np.ndarray
    errors: dict[int, tuple[str, str]]
    """By id: reason and detail."""


def _read(run: RunDir, index: ShardIndex) -> _Scores:
    size = len(index.ids)
    found = _Scores(index.ids, np.full(size, np.nan), np.zeros(size, dtype=np.int32), {})
    for batch in read_batches(run, index):
        at = np.searchsorted(index.ids, batch["id"].to_numpy())
        found.score[at] = batch["score"].to_numpy(zero_copy_only=False)
        found.num_tokens[at] = batch["num_tokens"].to_numpy()
        for one, status, reason, detail in zip(
            *(batch[name].to_pylist() for name in ("id", "status", "reason", "detail")), strict=True
        ):
            if status != "ok":
                found.errors[one] = (reason, detail)
    return found


def write_result(run: RunDir, facts: dict[str, str]) -> dict[str, Any]:
    """Writes scores/, a file for each of the inputs' parts.

    Args:
        facts: metadata of the files.

    Returns:
        counts: conversations, scored, errors, error_reasons, tokens.

    Raises:
        StageError: conversations have no row in any shard.
    """
    index = read_index(run, (SHARDS,))
    inputs = run.read_ids(INPUTS)
    missing = int(np.count_nonzero(~is_among(inputs, index.ids)))
    if missing:
        raise StageError(
            f"{missing} of {len(inputs)} conversations have no row in {run.display(SHARDS)}: the same "
            "command goes on with them"
        )
    scores = _read(run, index)
    run.clear(RESULT)
    schema = result_schema(facts)
    parts = run.parquet_files(INPUTS)
    for number, path in enumerate(parts):
        with run.open_parquet(path) as file:
            table = _part(file, scores, schema)
        run.write_table(table, RESULT, f"part-{number:05d}-of-{len(parts):05d}.parquet")
    reasons = Counter(reason for reason, _ in scores.errors.values())
    return {
        "conversations": len(inputs),
        "scored": len(inputs) - reasons.total(),
        "errors": reasons.total(),
        "error_reasons": dict(sorted(reasons.items())),
        "tokens": int(scores.num_tokens[~np.isnan(scores.score)].sum(dtype=np.int64)),
    }


def _part(file: pq.ParquetFile, scores: _Scores, schema: pa.Schema) -> pa.Table:
    asked = file.read(columns=["id", "key", "column"])
    ids = asked["id"].to_numpy()
    at = np.searchsorted(scores.ids, ids)
    errors = [scores.errors.get(one) for one in ids.tolist()]
    score = scores.score[at]
    columns = {
        "id": asked["key"],
        "row": pa.array(ids // 2),
        "column": asked["column"],
        "score": pa.array(score, mask=np.isnan(score)),
        "num_tokens": pa.array(scores.num_tokens[at]),
        "status": pa.array(["error" if error else "ok" for error in errors]),
        "reason": pa.array([error[0] if error else "" for error in errors]),
        "detail": pa.array([error[1] if error else "" for error in errors]),
    }
    return pa.table(columns).cast(schema)
