"""Which checkpoints a run folder holds, and what the index of one says.

`index.json` is written last: a folder without it does not count. This module reads no weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from music_ray.errors import RunFolderError
from music_ray.rundir import RunDir
from music_ray.storage import entries

FORMAT = 1
_INDEX_KEYS = {"format", "step", "seed", "pairs_per_step", "fingerprint", "world_size", "parameters"}


@dataclass(frozen=True)
class Position:
    """Where a training run stands, and which run it is."""

    step: int
    """Finished optimizer steps."""
    seed: int
    pairs_per_step: int
    """With the step this is the data position: step x pairs_per_step pairs of the stream are done."""
    fingerprint: str
    """Hash of all that decides the training's result."""


def name_of(step: int) -> str:
    """Folder name of a checkpoint inside checkpoints/."""
    return f"step-{step:06d}"


def complete_steps(run: RunDir) -> list[int]:
    """Steps of the checkpoints that are complete, ascending."""
    return [step for step in all_steps(run) if run.exists("checkpoints", name_of(step), "index.json")]


def evaluations(run: RunDir) -> dict[int, dict[str, Any]]:
    """What the kept checkpoints scored on the held-out pairs, by step; those not evaluated are left out.

    Raises:
        RunFolderError: an index is damaged or from a newer music_ray.
    """
    found = {step: read_index(run, step).get("evaluation") for step in complete_steps(run)}
    return {step: suites for step, suites in found.items() if suites}


def read_index(run: RunDir, step: int) -> dict[str, Any]:
    """A checkpoint's index.

    Raises:
        RunFolderError: it is damaged or from a newer music_ray.
    """
    where = run.display("checkpoints", name_of(step))
    try:
        index = json.loads(run.read_text("checkpoints", name_of(step), "index.json"))
        if index["format"] > FORMAT:
            raise RunFolderError(f"{where} was made by a newer music_ray: upgrade music_ray, or remove it")
        missing = _INDEX_KEYS - index.keys()
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{where}/index.json is damaged ({error}): {remedy(where)}") from None
    if missing:
        raise RunFolderError(f"{where}/index.json is damaged (it lacks {min(missing)}): {remedy(where)}")
    return index


def remedy(where: str) -> str:
    """What to do about a checkpoint that cannot be used."""
    return f"remove {where} to go on from the checkpoint before it"


def rank_file(rank: int) -> str:
    """File name of a rank's fragments."""
    return f"rank-{rank:05d}.safetensors"


def all_steps(run: RunDir) -> list[int]:
    """Steps of all checkpoint folders, those that were not finished too, ascending."""
    names = [info.base_name for info in entries(run.fs, run.path("checkpoints"))]
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"step-(\d+)", name)))
