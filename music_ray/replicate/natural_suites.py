"""The suites that the language model's own errors make: S2, and final turns of the development split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from music_ray.errors import StageError
from music_ray.miniature.natural import error_rates, natural_errors, natural_final_errors
from music_ray.miniature.suites import EARLY, FINAL, SuitePair
from music_ray.progress import say
from music_ray.replicate.record import write_text
from music_ray.replicate.rollouts import Recipe, rollouts, samples
from music_ray.replicate.world import make
from music_ray.schema import Message

RATES = "natural-errors.json"
"""Beside the suites: how often the language model by itself is right, by turn."""


def write_natural_early(recipe: Recipe, file: Path) -> None:
    """S2, and the rates of natural errors beside it.

    Raises:
        StageError: no natural error of every kind.
        MusicRayError: as the stages that roll out.
    """
    said = _said(recipe, "samples")
    write_text(recipe.world / RATES, json.dumps(error_rates(said), indent=2) + "\n")
    wanted = recipe.scale.suite_pairs
    _write(natural_errors(_of_both_lengths(said), per_cell=-(-wanted // len(EARLY))), file, len(said), wanted)


def write_natural_final(recipe: Recipe, file: Path, name: str) -> None:
    """The language model's own errors in final turns, on first messages of the development split.

    Raises:
        StageError, MusicRayError: as write_natural_early.
    """
    said = _said(recipe, "dev-samples")
    wanted = min(1000, recipe.scale.suite_pairs)
    pairs = natural_final_errors(said, per_cell=-(-wanted // len(FINAL)))
    _write(pairs, file, len(said), wanted, {"source": name})


def _said(recipe: Recipe, name: str) -> list[list[Message]]:
    return [messages for _, messages in samples(rollouts(recipe, name))]


def _write(
    pairs: list[SuitePair], file: Path, num_samples: int, wanted: int, more: dict[str, Any] | None = None
) -> None:
    if not pairs:
        raise StageError(
            f"{file.stem}: no natural error for every number of turns among {num_samples} samples: raise the "
            "scale's samples"
        )
    if len(pairs) < wanted:
        say(f"{file.stem}: {len(pairs)} pairs and not {wanted}: {num_samples} samples hold no more")
    make(file, lambda: [pair.row() | (more or {}) for pair in pairs])


def _of_both_lengths(said: list[list[Message]]) -> list[list[Message]]:
    """Every other sample without its last turn: S2 has conversations of 3 turns and of 4."""
    return [messages[:-2] if number % 2 else messages for number, messages in enumerate(said)]
