"""What the shards hold at the end of generate, counted column by column: no row becomes a Python object."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from music_ray.errors import StageError
from music_ray.jobs.shards import read_batches, read_index
from music_ray.rundir import RunDir

_KINDS = ("prompt", "cached", "completion")


def account(run: RunDir, folder: tuple[str, ...], seed_ids: np.ndarray) -> dict[str, Any]:
    """Counts the rows of the present seeds.

    Returns:
        counts, tokens, call_seconds and a digest of what is there, for RunDir.finish_stage.

    Raises:
        StageError: seeds without a rollout, or nothing but errors.
    """
    wanted = np.sort(seed_ids)
    whole = read_index(run, folder)
    index = whole.only(wanted)
    reasons: dict[str, Counter[str]] = {"ok": Counter(), "error": Counter()}
    tokens = dict.fromkeys(_KINDS, 0)
    call_seconds = 0.0
    epochs = np.zeros(len(index.ids), dtype=np.int32)
    for batch in read_batches(run, index, ["id", "status", "reason", "calls", "run_epoch"]):
        for status, reason in zip(batch["status"].to_pylist(), batch["reason"].to_pylist(), strict=True):
            reasons[status][reason] += 1
        calls = batch["calls"].flatten()
        for kind in _KINDS:
            tokens[kind] += _sum(calls, f"{kind}_tokens")
        if calls.type.get_field_index("seconds") >= 0:
            call_seconds += _sum(calls, "seconds")
        epochs[np.searchsorted(index.ids, batch["id"].to_numpy())] = batch["run_epoch"].to_numpy()
    errors = dict(sorted(reasons["error"].items()))
    _check(run, len(wanted), len(index.ids), errors)
    return {
        "counts": {
            "seeds": len(wanted),
            "ok": reasons["ok"].total(),
            "errors": errors,
            "stopped_early": {name: count for name, count in sorted(reasons["ok"].items()) if name},
            "duplicate_rows": whole.duplicate_rows,
        },
        "tokens": tokens,
        "call_seconds": round(call_seconds, 1),
        "output": hashlib.sha256(index.ids.tobytes() + epochs.tobytes()).hexdigest()[:16],
    }


def _sum(calls: pa.StructArray, field: str) -> Any:
    return pc.sum(pc.struct_field(calls, field)).as_py() or 0


def _check(run: RunDir, num_seeds: int, num_rows: int, errors: dict[str, int]) -> None:
    if num_rows < num_seeds:
        raise StageError(
            f"{num_seeds - num_rows} of {num_seeds} seeds have no rollout in {run.display('rollouts')}: the "
            "same command goes on with them"
        )
    if sum(errors.values()) == num_seeds:
        reasons = ", ".join(f"{reason} {count}" for reason, count in errors.items())
        raise StageError(
            f"all {num_seeds} rollouts failed ({reasons}): no pair can be made; see the `detail` column "
            f"in {run.display('rollouts')}"
        )
