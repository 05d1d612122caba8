"""Configuration of the preference set D and of the seeds that are cut from it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from music_ray.config.base import FREE, GROWTH, Section


class SourceConfig(Section):
    """One place that preference pairs are read from."""

    path: str | None = None
    """A Parquet file, a JSON-lines file (.jsonl, .json, plain or .gz), a folder of them, or
    `sample` for the preference conversations shipped in the package."""

    hub: str | None = None
    """A Hugging Face dataset id, e.g. Skywork/Skywork-Reward-Preference-80K-v0.2."""

    revision: str | None = None
    """Commit, tag or branch of the hub dataset; the hub's default branch when empty."""

    split: str = "train"
    """Which split of the hub dataset is read."""

    name: str | None = None
    """The `source` that rows without a `source` column get; the file's or dataset's name when empty."""

    limit: int | None = Field(default=None, ge=1)
    """At most this many rows are read from this source."""

    licence: str | None = Field(default=None, min_length=1, max_length=100, json_schema_extra=FREE)
    """Licence of the rows that name none themselves (columns `licence` or `license`), for the dataset
    cards: an identifier of the hub such as cc-by-4.0 or odc-by, else any name; unknown when empty."""

    @model_validator(mode="after")
    def _one_place(self) -> SourceConfig:
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source needs exactly one of `path` (files) and `hub` (a dataset id)")
        return self


class DataConfig(Section):
    """The preference set D: where it is, and which part of it is held out."""

    sources: list[SourceConfig] = Field(default=[])
    """Where D is read from, in this order; a pair that occurs twice is kept once."""

    held_out_fraction: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Share of conversations (by hash of their first user message, so that all pairs of one
    conversation fall on one side) that is kept for evaluation and never seeds or trains."""

    system: Literal["fold", "set_aside"] = "fold"
    """What becomes of a leading system message: folded into the first user message (Gemma-2's chat
    template refuses the system role), or the row is set aside with a reason."""


class SeedsConfig(Section):
    """How a conversation of D becomes a seed context (design: step 1 of the method)."""

    cut: Literal["prompt", "first_user", "random"] = "prompt"
    """Where the conversation is cut: through the last user message, the first user message alone, or
    a user message drawn uniformly (deterministic in the run seed and the pair's id)."""

    num_seeds: int | None = Field(default=None, ge=1, json_schema_extra=GROWTH)
    """How many seeds are kept (the first by a hash order, so that growing keeps the earlier ones);
    all of them when empty. A growth key: raise it and run again."""

    max_tokens: int | None = Field(default=None, ge=8)
    """Seed contexts longer than this, counted with the engine's chat template, are set aside
    (paper's budget: 512 of 2,048); no bound when empty."""


class RayConfig(Section):
    """How Ray is reached."""

    address: str | None = Field(default=None, json_schema_extra=FREE)
    """Address of a running cluster; when empty the RAY_ADDRESS of the environment is used, else a
    local Ray is started for this command."""

    num_cpus: int | None = Field(default=None, ge=1, json_schema_extra=FREE)
    """CPUs of a locally started Ray; the machine's when empty. Ignored with an address."""

    object_store_gib: float = Field(default=0.5, gt=0.07, json_schema_extra=FREE)
    """Object store of a locally started Ray in GiB. Rows do not travel through Ray, so it is small."""

    worker_logs: bool = Field(default=False, json_schema_extra=FREE)
    """Whether what the workers' libraries print is shown as well; it is in Ray's log folder anyway."""
