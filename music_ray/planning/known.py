"""What a plan can build on: the configuration, and whatever the run folder holds already.

Only reads. A folder made with other settings still lends its seeds where those are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from music_ray.config import RunConfig
from music_ray.errors import RunFolderError
from music_ray.identity import same_keys, stage_keys
from music_ray.jobs.usage import read_usage
from music_ray.planning.lengths import SeedLengths, guessed_seeds, read_seeds
from music_ray.planning.measured import Measured, read_measured
from music_ray.rundir import RunDir

UNKNOWN_SEEDS = 1_000
"""Where nobody knows how many seeds there will be, the plan is for so many."""
NUM_SEEDS = "seeds.num_seeds"


@dataclass
class Known:
    """What is known of a run before it goes on."""

    run: RunDir
    num_seeds: int
    seeds_are_known: bool
    seeds: SeedLengths
    has_seeds: bool
    """The run folder holds seeds that this configuration would cut as well."""
    measured: Measured | None
    """Rollouts of these seeds; None where there is none, or the folder's are of other settings."""
    stages: dict[str, Any]
    """The manifest's records of stages."""
    usage: Mapping[str, float]
    """What the generate stage has used: engine_seconds, gpu_seconds, cpu_seconds."""
    canary: dict[str, Any]
    fits: bool
    """The run folder is there and was made with the same settings: the plan may be written into it."""
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> RunConfig:
        """The configuration that is planned."""
        return self.run.config

    @property
    def rows_there(self) -> int:
        """Rollouts that need not be made again."""
        return self.measured.num_rows if self.measured else 0

    def counts(self, stage: str) -> dict[str, Any]:
        """What a finished stage has counted."""
        record = self.stages.get(stage, {})
        return record.get("counts", {}) if record.get("status") == "done" else {}


def read_known(run: RunDir) -> Known:
    """Reads the run folder, if there is one.

    Raises:
        RunFolderError: its manifest is damaged or of a newer music_ray.
    """
    config = run.config
    manifest = run.manifest()
    exists = "identity" in manifest
    stages: dict[str, Any] = manifest["stages"]
    has_seeds = bool(run.parquet_files("seeds", "contexts")) and _same_seeds(config, stages.get("seeds", {}))
    notes: list[str] = []
    number = _num_seeds(config, stages.get("seeds", {}) if has_seeds else {})
    if number is None:
        notes.append(
            f"nobody knows yet how many seeds the data gives, so this is for {UNKNOWN_SEEDS:,}: run "
            "`music-ray seeds CONFIG` first (no engine is started), or set seeds.num_seeds"
        )
    fits = exists
    try:
        run.check_identity()
    except RunFolderError:
        fits = False
        notes.append(
            f"{run.display()} was made with other settings: its rollouts are left aside, and the plan is not "
            "written into it"
        )
    measured = read_measured(run, _seed_ids(run)) if has_seeds and fits else None
    return Known(
        run=run,
        num_seeds=number if number is not None else UNKNOWN_SEEDS,
        seeds_are_known=number is not None,
        seeds=read_seeds(run) if has_seeds else guessed_seeds(config),
        has_seeds=has_seeds,
        measured=measured,
        stages=stages,
        usage=read_usage(run, "generate") if fits else {},
        canary=manifest.get("canary", {}) if fits else {},
        fits=fits,
        notes=notes,
    )


def _same_seeds(config: RunConfig, record: dict[str, Any]) -> bool:
    """Whether the folder's seeds are those of this configuration, however many."""
    before = (record.get("made_from") or {}).get("keys")
    if before is None or record.get("status") != "done":
        return False
    now, defaults = stage_keys(config, "seeds"), stage_keys(RunConfig(name=config.name), "seeds")
    return same_keys(
        *({key: table[key] for key in table if key != NUM_SEEDS} for table in (before, now, defaults))
    )


def _num_seeds(config: RunConfig, record: dict[str, Any]) -> int | None:
    """How many seeds there will be; None where nobody knows."""
    wanted = config.seeds.num_seeds
    if not record:
        return wanted
    counts = record["counts"]
    if wanted == record["made_from"]["keys"].get(NUM_SEEDS):
        return int(counts["seeds"])
    return int(min(wanted or counts["contexts"], counts["contexts"]))


def _seed_ids(run: RunDir) -> np.ndarray:
    parts = []
    for path in run.parquet_files("seeds", "contexts"):
        with run.open_parquet(path) as file:
            parts.append(file.read(columns=["id"])["id"].to_numpy())
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
