"""The reward models of a replication: every arm and training seed is a run of the real train stage."""

from __future__ import annotations

from pathlib import Path

from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.world import NATURAL_PREFERENCES, PREFERENCES
from music_ray.run import run_stages


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
    words = [f"data.sources={sources}", "mix.include_music=false", f"seed={1000 + seed}"]
    words.append("data.held_out_fraction=0")  # else other pairs would be held out in every arm
    run = run_stages(recipe.config("arms", f"{arm}-{seed}", words), ["seeds", "mix", "train"])
    return Path(run.display("model"))
