"""Configuration of the rollouts: how many turns, and how they are spread over the engines."""

from __future__ import annotations

import math

from pydantic import Field

from music_ray.config.base import FREE, Section


class CanaryConfig(Section):
    """The first seeds go through gates and audit while the engines go on; the run stops where they fail."""

    seeds: int = Field(default=200, ge=0, json_schema_extra=FREE)
    """How many of the first seeds are looked at as soon as all of them are rolled out; 0 looks at none.
    A run of fewer than twice as many seeds has no canary."""

    min_acceptance: float = Field(default=0.2, ge=0.0, le=1.0, json_schema_extra=FREE)
    """Share of them that must pass the gates."""

    max_auc: float = Field(default=0.95, ge=0.5, le=1.0, json_schema_extra=FREE)
    """The audit of the accepted ones may not tell chosen from rejected by surface features better than
    this (lower end of its interval); 1 allows anything."""


class GenerateConfig(Section):
    """The rollouts and how they are spread over the engines."""

    turns: int = Field(default=5, ge=1, le=64)
    """T: assistant turns that every rollout goes on for after its seed (paper: 5)."""

    conversations_per_task: int = Field(default=16, ge=1, le=1024, json_schema_extra=FREE)
    """Seeds in one Ray Data task. A block is released when its slowest row ends, so small; but Ray keeps
    1.6 KB a task in the driver, so raise it for tens of millions of seeds."""

    tasks_in_flight: int | None = Field(default=None, ge=2, json_schema_extra=FREE)
    """Tasks whose seeds are rolled out at once in one engine actor. When empty, as many as it takes for
    1.5 rollouts for each request that its engine runs at once (engine.max_num_seqs, as the engine derives
    it where that is empty; at an endpoint max_concurrency), so that the engine never runs dry."""

    flush_rows: int = Field(default=256, ge=1, json_schema_extra=FREE)
    """An actor writes its finished rollouts as one shard as soon as it holds this many (or half as many as
    it works on, if that is less) …"""

    flush_seconds: float = Field(default=20.0, gt=0.0, json_schema_extra=FREE)
    """… or after this many seconds. What is in flight since the last flush is all a crash can cost."""

    max_error_rate: float = Field(default=0.5, gt=0.0, le=1.0, json_schema_extra=FREE)
    """Share of error rows above which a start of the stage ends, saying why; 1 never ends it."""

    error_rate_after: int = Field(default=50, ge=1, json_schema_extra=FREE)
    """Rows that must have ended before max_error_rate counts."""

    retry_errors: bool = Field(default=False, json_schema_extra=FREE)
    """Roll out again what ended as an error row, such as after an endpoint was down. The former rows stay
    in the shards, and an ok row counts before them."""

    max_engine_deaths: int = Field(default=3, ge=2, json_schema_extra=FREE)
    """Engines that may die with one and the same seed in them before the seed ends as an error row with
    the reason engine_died, the last time alone. Engines that vanish without a word (a spot node, kill -9)
    count a third."""

    stall_seconds: float = Field(default=120.0, gt=0.0, json_schema_extra=FREE)
    """Without any engine's answer for so long, the run says that it has stalled, and what is in flight."""

    canary: CanaryConfig = CanaryConfig()
    """What the first rows must show before the rest is paid for."""

    def rows_in_flight(self, places: int) -> int:
        """Rollouts that one engine actor works on at once.

        Args:
            places: requests that its engine runs at once (music_ray.jobs.room); tasks_in_flight goes before.
        """
        if self.tasks_in_flight is not None:
            return self.tasks_in_flight * self.conversations_per_task
        return max(math.ceil(1.5 * places), 2 * self.conversations_per_task)
