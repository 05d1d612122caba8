"""The rollouts of a replication: runs of the real stages seeds, generate and pairs, and what they hold.

Every run has a folder below OUT/rollouts and goes on where it was interrupted. Which run is for what:

    music     contrasts as the method has them: arms A1 and A3
    last      the same seeds and run seed, contrast in the last turn alone: arm A2
    plain-N   the same seeds and another run seed; the sides that follow no contrast are samples: A4 and A6
    NAME      of the variants: music with one thing changed, for the ablations
    samples, dev-samples, train-samples
              the first messages of suite S2, others of the development split, others of the training split
              for D: natural errors, at a temperature of their own
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from music_ray.config import RunConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.replicate.scale import Scale
from music_ray.replicate.world import DEV_OPENINGS, NUM_TURNS, OPENINGS, PREFERENCES, TRAIN_OPENINGS
from music_ray.run import run_stages
from music_ray.rundir import RunDir
from music_ray.schema import Message, count_user_turns

PLAIN_RUNS = {"plain-2": 102, "plain-3": 103, "plain-4": 104}
"""Their run seeds; those of the configuration file are other numbers."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "schedule-all": ("contrast.schedule=all",),
    "schedule-first": ("contrast.schedule=turns:[1]",),
    "mode-neighbour": ("contrast.mode=neighbour", "contrast.template=null"),
    "mode-resample": ("contrast.mode=resample", "contrast.template=null"),
    "history-replayed": ("user.history=replay_chosen",),
    # Up to 4 turns of D's conversations go before, so fewer are added.
    "cut-random": ("seeds.cut=random", "generate.turns=2"),
}
"""What the paper leaves open, one change each to the configuration of the run `music`."""
_SAMPLES: dict[str, tuple[str, Callable[[Scale], int]]] = {
    "samples": (OPENINGS, lambda scale: scale.samples),
    "train-samples": (TRAIN_OPENINGS, lambda scale: scale.preference_samples),
    "dev-samples": (DEV_OPENINGS, lambda scale: scale.dev_samples),
}
"""The file of first messages, and how many there are."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all runs of a replication have in common."""

    out: Path
    values: dict[str, Any]
    """The configuration file as plain values."""
    scale: Scale
    overrides: tuple[str, ...] = ()
    """The user's KEY=VALUE words; they come after the scale's."""

    @property
    def world(self) -> Path:
        """Folder of the world's files."""
        return self.out / "world"

    @property
    def natural_sampling(self) -> str:
        """The override for runs in which the assistant's own errors are looked for."""
        return f"assistant.sampling.temperature={self.scale.natural_temperature}"

    def config(self, folder: str, name: str, words: list[str]) -> RunConfig:
        """The configuration of one run."""
        values = apply_overrides(_copy(self.values), [*self.scale.overrides, *self.overrides, *words])
        return resolve_config(values | {"name": name, "runs_dir": str(self.out / folder)})


def rollouts(recipe: Recipe, name: str) -> RunDir:
    """Brings one of the runs above to the end of its pairs.

    Raises:
        MusicRayError: as the stages.
    """
    is_music = name in ("music", "last", *VARIANTS)
    source, count = PREFERENCES, recipe.scale.rollouts
    words = []
    if name in _SAMPLES:
        source, number = _SAMPLES[name]
        count = number(recipe.scale)
        words += ["data.held_out_fraction=0", recipe.natural_sampling]
    if name != "music" and name not in VARIANTS:
        words.append(f"contrast.schedule=turns:[{NUM_TURNS}]")
    if name in PLAIN_RUNS:
        words.append(f"seed={PLAIN_RUNS[name]}")
    words += [
        *VARIANTS.get(name, ()),
        f"data.sources=[{{path: {recipe.world / source}, name: miniature}}]",
        f"seeds.num_seeds={count}",
    ]
    stages = ["seeds", "generate", "pairs"] if is_music else ["seeds", "generate"]
    return run_stages(recipe.config("rollouts", name, words), stages)


def pairs_by_seed(run: RunDir) -> dict[int, dict[str, Any]]:
    """The accepted pairs of a run, by the seed that they come from."""
    columns = ["id", "seed_id", "chosen", "rejected"]
    return {row["seed_id"]: row for row in run.read_rows("pairs", columns=columns)}


def samples(run: RunDir) -> Iterator[tuple[int, list[Message]]]:
    """The full-length sides that follow no contrast, each with its seed's id, in the order of the ids."""
    found: dict[int, list[Message]] = {}
    for row in run.read_rows("rollouts", columns=["id", "status", "chosen"]):
        if row["status"] == "ok" and count_user_turns(row["chosen"]) == NUM_TURNS:
            found.setdefault(row["id"], row["chosen"])  # of a task that ran twice, the first row counts
    yield from sorted(found.items())


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}
