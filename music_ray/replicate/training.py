"""The reward models of a replication: every arm and training seed is a run of the real train stage."""

from __future__ import annotations

from pathlib import Path

from music_ray.miniature.deepen import deepen
from music_ray.models import resolve_model
from music_ray.progress import say
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.world import NATURAL_PREFERENCES, PREFERENCES
from music_ray.run import run_stages


def base_model(recipe: Recipe) -> Path:
    """What every reward model begins as: train.base_model with the scale's new layers on top."""
    folder = recipe.out / "base-model"
    if not folder.exists():
        model = resolve_model(recipe.config("arms", "base-model", []).train.base_model)
        deepen(model, folder, recipe.scale.new_layers)
        say(f"base-model: {model} with {recipe.scale.new_layers} layers more")
    return folder


def train_arm(recipe: Recipe, arm: str, pairs: Path, seed: int) -> Path:
    """Trains on D and the arm's pairs; returns the model's folder.

    Args:
        pairs: the file of the arm's pairs.
        seed: decides the head's first weights and the order of pairs, alike in all arms.

    Raises:
        MusicRayError: as the stages.
    """
    files = {"D": recipe.world / PREFERENCES, "D-natural": recipe.world / NATURAL_PREFERENCES, arm: pairs}
    if not recipe.scale.preference_samples:
        del files["D-natural"]
    sources = "[" + ", ".join(f"{{path: {file}, name: {name}}}" for name, file in files.items()) + "]"
    words = [
        f"data.sources={sources}",
        "data.held_out_fraction=0",  # else other pairs would be held out in every arm
        "mix.include_music=false",
        f"train.base_model={base_model(recipe)}",
        f"seed={1000 + seed}",
    ]
    run = run_stages(recipe.config("arms", f"{arm}-{seed}", words), ["seeds", "mix", "train"])
    return Path(run.display("model"))
