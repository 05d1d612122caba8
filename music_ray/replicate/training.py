"""The reward models of a replication: every arm and training seed is a run of the real train stage."""

from __future__ import annotations

import os
from pathlib import Path

from music_ray.config import RunConfig
from music_ray.miniature.deepen import deepen
from music_ray.models import resolve_model
from music_ray.progress import say
from music_ray.replicate.processes import run_at_once
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.world import NATURAL_PREFERENCES, PREFERENCES
from music_ray.rundir import RunDir

STAGES = ("seeds", "mix", "train")
"""What the run of an arm consists of."""


def base_model(recipe: Recipe) -> Path:
    """What every reward model begins as: train.base_model with the scale's new layers on top."""
    folder = recipe.out / "base-model"
    if not folder.exists():
        model = resolve_model(recipe.config("arms", "base-model", []).train.base_model)
        deepen(model, folder, recipe.scale.new_layers)
        say(f"base-model: {model} with {recipe.scale.new_layers} layers more")
    return folder


def train_arms(recipe: Recipe, files: dict[str, Path], seed: int) -> dict[str, Path]:
    """Trains on D and the pairs of each arm; returns the models' folders.

    As many arms at once as this machine's cores hold, each in a process of its own: two trainings of one
    worker get further than one of two, which wait for each other.

    Args:
        files: the file of each arm's pairs.
        seed: decides the head's first weights and the order of pairs, alike in all arms.

    Raises:
        MusicRayError: as the stages.
    """
    base = base_model(recipe)
    configs = {arm: _config(recipe, arm, pairs, base, seed) for arm, pairs in files.items()}
    run_at_once({config.name: config for config in configs.values()}, STAGES, arms_at_once(recipe))
    return {arm: Path(RunDir(config).display("model")) for arm, config in configs.items()}


def is_trained(recipe: Recipe, arm: str, seed: int) -> bool:
    """Whether an arm's model is there: a run folder gets it when its training has ended."""
    return (recipe.out / "arms" / f"{arm}-{seed}" / "model" / "model.safetensors").exists()


def arms_at_once(recipe: Recipe) -> int:
    """How many arms the cores of this machine hold, each with all its workers."""
    train = recipe.config("arms", "any", []).train
    cores = len(os.sched_getaffinity(0))
    return max(1, int(cores // (train.num_workers * train.cpus_per_worker)))


def trained_on(recipe: Recipe, arm: str, pairs: Path) -> dict[str, Path]:
    """The files of pairs that an arm is trained on, by the name of the source."""
    files = {"D": recipe.world / PREFERENCES, "D-natural": recipe.world / NATURAL_PREFERENCES, arm: pairs}
    if not recipe.scale.preference_samples:
        del files["D-natural"]
    return files


def _config(recipe: Recipe, arm: str, pairs: Path, base: Path, seed: int) -> RunConfig:
    files = trained_on(recipe, arm, pairs)
    sources = "[" + ", ".join(f"{{path: {file}, name: {name}}}" for name, file in files.items()) + "]"
    words = [
        f"data.sources={sources}",
        "data.held_out_fraction=0",  # else other pairs would be held out in every arm
        "mix.include_music=false",
        f"train.base_model={base}",
        f"seed={1000 + seed}",
    ]
    return recipe.config("arms", f"{arm}-{seed}", words)
