"""Plan against truth: what plan.json foresaw before the rollouts, beside what the manifest and shards say.

A row is there only where the plan has the number and the run knows it by now.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from music_ray.costs import TOKEN_KINDS, spent
from music_ray.errors import RunFolderError
from music_ray.jobs.shards import read_batches, read_index
from music_ray.jobs.usage import read_usage
from music_ray.judge.rows import job_name, verdict_folder
from music_ray.report.jsonlines import naming_damage
from music_ray.report.show import count, percent
from music_ray.rundir import RunDir

PLAN_FILE = "plan.json"
_SHARDS = ("rollouts", "shards")
_ROLES = ("assistant", "user", "contrast")
_LABELS = {
    "generate.rollouts": "rollouts",
    "generate.calls.assistant": "calls of the assistant",
    "generate.calls.user": "calls of the user simulator",
    "generate.calls.contrast": "calls that write contrasts",
    "generate.prompt_tokens": "prompt tokens",
    "generate.cached_tokens": "of these from the prefix cache",
    "generate.completion_tokens": "completion tokens",
    "generate.wall_hours": "hours of generate",
    "generate.gpu_hours": "GPU hours of generate",
    "generate.cost": "cost of generate",
    "pairs.accepted": "accepted pairs",
    "judge.pairs": "judged pairs",
    "judge.calls": "calls of the judge",
    "judge.prompt_tokens": "prompt tokens of the judge",
    "judge.completion_tokens": "completion tokens of the judge",
    "judge.gpu_hours": "GPU hours of the judge",
    "judge.cost": "cost of the judge",
    "mix.preferences": "pairs of D in the mix",
    "mix.music": "MUSIC pairs in the mix",
    "train.tokens": "trained tokens",
    "train.wall_hours": "hours of training steps",
    "evaluate.pairs": "evaluated pairs",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One number as it was planned and as it came."""

    label: str
    unit: str
    low: float
    expected: float
    high: float
    truth: float
    basis: str

    @property
    def has_bounds(self) -> bool:
        """Whether the plan gave more than one number."""
        return not self.low == self.expected == self.high

    @property
    def ratio(self) -> str:
        """Truth over expectation."""
        return percent(self.truth / self.expected) if self.expected else ""

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if not self.has_bounds:
            return ""
        # A plan may be off by rounding; not by more.
        if self.truth > self.high * 1.0001:
            return "above the plan"
        return "below the plan" if self.truth < self.low * 0.9999 else "as planned"

    def shown(self, value: float) -> str:
        """A number of this row."""
        return f"{value:,.2f}" if abs(value) < 100 and value != int(value) else count(value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The plan beside the truth."""

    num_seeds: int
    rows_there: int
    """Rollouts that were there when it was made: 0, unless the plan was made late."""
    rows: list[Compared]


def read_comparison(run: RunDir, manifest: dict[str, Any]) -> Comparison | None:
    """Compares the first plan of plan.json with what is known; None without a plan or a truth.

    Raises:
        InputError: the manifest is damaged.
        RunFolderError: plan.json is.
    """
    if not run.exists(PLAN_FILE):
        return None
    with naming_damage("a stage's record in manifest.json", "restore it"):
        truth = {name: value for name, value in _truth(run, manifest).items() if value is not None}
    try:
        plan = json.loads(run.read_text(PLAN_FILE))["first"]
        rows = [
            Compared(
                label=label,
                unit=quantity["unit"],
                low=float(quantity["low"]),
                expected=float(quantity["expected"]),
                high=float(quantity["high"]),
                truth=truth[name],
                basis=str(quantity["basis"]),
            )
            for name, label in _LABELS.items()
            if name in truth and (quantity := plan["quantities"].get(name))
        ]
        return Comparison(int(plan["num_seeds"]), int(plan["rows_there"]), rows) if rows else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{run.display(PLAN_FILE)} is damaged ({type(error).__name__}: {error}): "
            "`music-ray plan` makes it anew"
        ) from None


def _truth(run: RunDir, manifest: dict[str, Any]) -> dict[str, float | None]:
    stages = manifest.get("stages", {})

    def done(stage: str) -> dict[str, Any]:
        record = stages.get(stage, {})
        return record if record.get("status") == "done" else {}

    truth: dict[str, float | None] = {}
    if generate := done("generate"):
        truth |= _generate_truth(run, generate)
    if pairs := done("pairs"):
        truth["pairs.accepted"] = pairs.get("counts", {}).get("accepted")
        truth |= _judge_truth(run, pairs)
    if mix := done("mix"):
        truth["mix.preferences"] = mix.get("counts", {}).get("preferences")
        truth["mix.music"] = mix.get("counts", {}).get("music")
    if train := done("train"):
        truth["train.tokens"] = train.get("tokens", {}).get("trained")
        truth["train.wall_hours"] = _hours(train.get("seconds_by_part", {}).get("steps"))
    if evaluate := done("evaluate"):
        counts = evaluate.get("counts", {})
        pairs_seen = [number for name, number in counts.items() if name.startswith("pairs_")]
        truth["evaluate.pairs"] = sum(pairs_seen) if pairs_seen else None
    return truth


def _generate_truth(run: RunDir, record: dict[str, Any]) -> dict[str, float | None]:
    calls = _count_calls(run)
    used = read_usage(run, "generate")
    truth: dict[str, float | None] = {
        "generate.rollouts": record.get("counts", {}).get("seeds"),
        "generate.wall_hours": _hours(record.get("total_seconds")),
        "generate.gpu_hours": _hours(used["gpu_seconds"]) if used else None,
    }
    for role in _ROLES:
        truth[f"generate.calls.{role}"] = calls[role]
    for kind in TOKEN_KINDS:
        truth[f"generate.{kind}_tokens"] = record.get("tokens", {}).get(kind)
    if used:
        # Also what was in flight when an engine was lost: it was paid for.
        tokens = {role: {kind: used[f"{role}.{kind}"] for kind in TOKEN_KINDS} for role in _ROLES}
        bill = spent(used["gpu_seconds"], used["cpu_seconds"], tokens, run.config)
        truth["generate.cost"] = None if bill.unpriced else bill.cost
    return truth


def _judge_truth(run: RunDir, record: dict[str, Any]) -> dict[str, float | None]:
    """Of the judge that the configuration names, over all its starts; what former judges took was not planned
    with it."""
    judge = run.config.pairs.judge
    counts = record.get("counts", {}).get("judge")
    if judge.engine is None or not counts:
        return {}
    used = read_usage(run, job_name(verdict_folder(judge.engine, judge.sampling)))
    truth: dict[str, float | None] = {"judge.pairs": sum(counts.values())}
    if used:
        tokens = {kind: used[kind] for kind in TOKEN_KINDS}
        bill = spent(used["gpu_seconds"], used["cpu_seconds"], {"judge": tokens}, run.config)
        truth |= {f"judge.{kind}_tokens": used[kind] for kind in ("prompt", "completion")}
        truth["judge.calls"] = used["calls"]
        truth["judge.gpu_hours"] = _hours(used["gpu_seconds"])
        truth["judge.cost"] = None if bill.unpriced else bill.cost
    return truth


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600


def _count_calls(run: RunDir) -> Counter[str]:
    """Calls by role, of the rows that count and whose seeds are there."""
    calls: Counter[str] = Counter()
    index = read_index(run, _SHARDS)
    seeds = [row["id"] for row in run.read_rows("seeds", "contexts", columns=["id"])]
    if seeds:
        index = index.only(np.sort(np.array(seeds, dtype=np.int64)))
    for batch in read_batches(run, index, ["calls"]):
        roles = pc.struct_field(batch.column("calls").flatten(), "role")
        for entry in pc.value_counts(roles).to_pylist():
            calls[entry["values"]] += entry["counts"]
    return calls
