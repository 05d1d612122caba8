"""What the rollouts that are there say about those that are not: means, spread, and intervals.

Reads call records of a sample of shards, column by column. Seeds are ordered by a hash, so the first
ones are like the rest; while engines still work, though, the rows that ended first are the short ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from music_ray.costs import TOKEN_KINDS
from music_ray.jobs.shards import ShardIndex, read_batches, read_index
from music_ray.rundir import RunDir

SHARDS = ("rollouts", "shards")
ROLES = ("assistant", "user", "contrast")
MIN_ROWS = 50
"""Fewer rollouts say less than the configuration does."""
SAMPLED_ROWS = 5_000
"""Shards are read until so many rows are seen, evenly over all of them."""
Z = 1.96
"""Half width of a 95% interval in standard deviations."""


@dataclass(frozen=True)
class Measured:
    """Rollouts of the present seeds."""

    num_rows: int
    """How many are there."""
    ok_share: float
    calls: dict[str, np.ndarray]
    """Of each sampled row, by role."""
    tokens: dict[tuple[str, str], np.ndarray]
    """Of each sampled row, by (role, kind)."""
    conversation: np.ndarray
    """Tokens of each sampled ok row's whole chosen side."""

    @property
    def num_sampled(self) -> int:
        """Rows that the numbers come from."""
        return len(self.calls["assistant"])

    @property
    def is_enough(self) -> bool:
        """Whether to plan by it."""
        return self.num_rows >= MIN_ROWS

    @property
    def basis(self) -> str:
        """Where these come from, for the reader."""
        seen = "" if self.num_sampled == self.num_rows else f", {self.num_sampled:,} of them read"
        return f"{self.num_rows:,} rollouts that are there{seen}"


def extrapolate(per_row: np.ndarray, there: int, total: int) -> tuple[float, float, float]:
    """Lower bound, expectation and upper bound of a sum over all rows, of which some are there already.

    What is there counts as it was measured; the interval is about the rest: the scatter of its rows, and
    the error of the mean that they are expected to have.
    """
    rest, mean = max(0, total - there), float(per_row.mean())
    # A sample stands for all that is there.
    expected = mean * (there + rest)
    if not rest or len(per_row) < 2:
        return expected, expected, expected
    spread = float(per_row.std(ddof=1))
    half = Z * spread * math.sqrt(rest + rest**2 / len(per_row))
    return max(mean * there, expected - half), expected, expected + half


def extrapolate_share(share: float, sample: int, there: int, total: int) -> tuple[float, float, float]:
    """The same for how many of all rows do something that this share of a sample did.

    Args:
        sample: rows that the share comes from; 0 for a guess, which has no interval.
    """
    rest = max(0, total - there)
    half = Z * math.sqrt(share * (1 - share) * (rest + rest**2 / sample)) if sample else 0.0
    expected = share * total
    return max(0.0, expected - half), expected, min(float(total), expected + half)


def read_measured(run: RunDir, seed_ids: np.ndarray) -> Measured | None:
    """What is known of the rollouts of these seeds (int64, any order); None where there is none."""
    index = read_index(run, SHARDS).only(np.sort(seed_ids))
    if not len(index.ids):
        return None
    calls: dict[str, list[np.ndarray]] = {role: [] for role in ROLES}
    tokens: dict[tuple[str, str], list[np.ndarray]] = {
        (role, kind): [] for role in ROLES for kind in TOKEN_KINDS
    }
    conversation: list[np.ndarray] = []
    for batch in read_batches(run, _sample(index), ["status", "calls"]):
        rows = _Rows.of(batch)
        for role in ROLES:
            calls[role].append(rows.sum(role, None))
            for kind in TOKEN_KINDS:
                tokens[role, kind].append(rows.sum(role, kind))
        conversation.append(rows.longest_chosen())
    return Measured(
        num_rows=len(index.ids),
        ok_share=1.0 - float(index.is_error.mean()),
        calls={role: np.concatenate(parts) for role, parts in calls.items()},
        tokens={key: np.concatenate(parts) for key, parts in tokens.items()},
        conversation=np.concatenate(conversation),
    )


def _sample(index: ShardIndex) -> ShardIndex:
    """The part of the index that lies in a few shards, evenly over all."""
    if len(index.ids) <= SAMPLED_ROWS:
        return index
    shards = np.unique(index.shard)
    wanted = max(1, math.ceil(len(shards) * SAMPLED_ROWS / len(index.ids)))
    chosen = shards[np.linspace(0, len(shards) - 1, wanted).round().astype(int)]
    return index.only(index.ids[np.isin(index.shard, chosen)])


@dataclass(frozen=True)
class _Rows:
    """The calls of a batch of rows, flat."""

    num_rows: int
    is_ok: np.ndarray
    row: np.ndarray
    """Row of each call."""
    calls: pa.StructArray

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Rows:
        column = batch.column("calls")
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        is_ok = pc.equal(batch.column("status"), "ok").to_numpy(zero_copy_only=False).astype(bool)
        return cls(batch.num_rows, is_ok, np.repeat(np.arange(batch.num_rows), lengths), column.flatten())

    def sum(self, role: str, kind: str | None) -> np.ndarray:
        """Of each row: tokens of a kind that a role used, or with None its calls."""
        mine = self._is("role", role)
        weights = None if kind is None else self._number(f"{kind}_tokens")[mine]
        return np.bincount(self.row[mine], weights, self.num_rows).astype(float)

    def longest_chosen(self) -> np.ndarray:
        """Of each ok row: prompt and completion of the chosen side's last reply."""
        mine = self._is("branch", "chosen") & self._is("role", "assistant")
        longest = np.zeros(self.num_rows)
        tokens = self._number("prompt_tokens") + self._number("completion_tokens")
        np.maximum.at(longest, self.row[mine], tokens[mine])
        return longest[self.is_ok]

    def _is(self, field: str, value: str) -> np.ndarray:
        return pc.equal(pc.struct_field(self.calls, field), value).to_numpy(zero_copy_only=False).astype(bool)

    def _number(self, field: str) -> np.ndarray:
        return pc.struct_field(self.calls, field).to_numpy(zero_copy_only=False).astype(np.int64)
