"""Configuration of the rollouts: how many turns, and how they are spread over the engines."""

from __future__ import annotations

from pydantic import Field

from music_ray.config.base import FREE, Section


class GenerateConfig(Section):
    """The rollouts and how they are spread over the engines."""

    turns: int = Field(default=5, ge=1, le=64)
    """T: assistant turns that every rollout goes on for after its seed (paper: 5)."""

    conversations_per_task: int = Field(default=16, ge=1, json_schema_extra=FREE)
    """Seeds in one Ray Data task. A block is released when its slowest row ends, so small."""

    tasks_in_flight: int = Field(default=8, ge=2, json_schema_extra=FREE)
    """Tasks that run at once in one engine actor; times conversations_per_task should exceed
    engine.max_num_seqs or the engine runs dry."""

    flush_rows: int = Field(default=256, ge=1, json_schema_extra=FREE)
    """An actor writes its finished rollouts as one shard as soon as it holds this many …"""

    flush_seconds: float = Field(default=20.0, gt=0.0, json_schema_extra=FREE)
    """… or after this many seconds. What is in flight since the last flush is all a crash can cost."""
