"""The suites that the language model's own errors make: S2, and what the development split has like it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from music_ray.errors import StageError
from music_ray.miniature.natural import error_rates, natural_errors, natural_final_errors
from music_ray.miniature.split_gate import first_foreign_list
from music_ray.miniature.suites import EARLY, FINAL, SuitePair
from music_ray.progress import say
from music_ray.replicate.record import write_text
from music_ray.replicate.rollouts import Recipe, rollouts, samples
from music_ray.replicate.world import NATURAL_PREFERENCES, make
from music_ray.schema import Message

RATES = "natural-errors.json"
"""Beside the suites: how often the language model by itself is right, by turn, in the samples of S2."""
TRAINING_RATES = "rollout-errors.json"
"""The same of the rollouts that D_MUSIC is made of."""


def write_natural_early(recipe: Recipe, file: Path) -> None:
    """S2, and the rates of natural errors beside it.

    Raises:
        StageError: no natural error of every kind.
        MusicRayError: as the stages that roll out.
    """
    whole = [one for _, one in samples(rollouts(recipe, "samples"))]
    write_text(recipe.world / RATES, json.dumps(error_rates(whole), indent=2) + "\n")
    wanted = recipe.scale.suite_pairs
    _write(_early(whole, wanted), file, len(whole), wanted)


def write_dev_early(recipe: Recipe, file: Path, name: str) -> None:
    """The same on first messages of the development split.

    Raises:
        StageError, MusicRayError: as write_natural_early.
    """
    found = [one for _, one in samples(rollouts(recipe, "dev-samples"))]
    wanted = min(1000, recipe.scale.suite_pairs)
    pairs = [replace(pair, suite=name) for pair in _early(found, wanted)]
    _write(pairs, file, len(found), wanted)


def _early(whole: list[list[Message]], wanted: int) -> list[SuitePair]:
    # S2 has conversations of both lengths; its clusters know which of them are one.
    shorter = [one[:-2] for one in whole]
    return natural_errors([*whole, *shorter], per_cell=-(-wanted // len(EARLY)))


def write_training_rates(recipe: Recipe) -> None:
    """The error rates of the sides that follow no contrast, in the rollouts of A1.

    Raises:
        MusicRayError: as the stages that roll out.
    """
    file = recipe.world / TRAINING_RATES
    if not file.exists():
        found = error_rates([one for _, one in samples(rollouts(recipe, "music"))])
        write_text(file, json.dumps(found, indent=2) + "\n")


def write_natural_preferences(recipe: Recipe) -> None:
    """Pairs of D with the language model's own errors in final turns; all lists are of the training split.

    Raises:
        StageError, MusicRayError: as write_natural_early.
    """
    file = recipe.world / NATURAL_PREFERENCES
    if not file.exists():
        found = [one for _, one in samples(rollouts(recipe, "train-samples"))]
        ours = [one for one in found if not first_foreign_list(one, "train")]
        _write(natural_final_errors(ours, equally_full=False), file, len(found), 0, {"source": "natural"})


def write_natural_final(recipe: Recipe, file: Path, name: str) -> None:
    """The language model's own errors in final turns, on first messages of the development split.

    Raises:
        StageError, MusicRayError: as write_natural_early.
    """
    found = [one for _, one in samples(rollouts(recipe, "dev-samples"))]
    wanted = min(1000, recipe.scale.suite_pairs)
    pairs = natural_final_errors(found, per_cell=-(-wanted // len(FINAL)))
    _write(pairs, file, len(found), wanted, {"source": name})


def _write(
    pairs: list[SuitePair], file: Path, num_rollouts: int, wanted: int, more: dict[str, Any] | None = None
) -> None:
    if not pairs:
        raise StageError(
            f"{file.stem}: no natural error for every number of turns among {num_rollouts} rollouts: raise "
            "the scale's samples"
        )
    if len(pairs) < wanted:
        say(f"{file.stem}: {len(pairs)} pairs and not {wanted}: {num_rollouts} rollouts hold no more")
    make(file, lambda: [pair.row() | (more or {}) for pair in pairs])
