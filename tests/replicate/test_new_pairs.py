"""S2's pairs on first messages that a smaller scale does not have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from music_ray.miniature.preferences import write_rows
from music_ray.replicate import new_pairs
from music_ray.replicate.new_pairs import is_new, new_first_messages
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import FULL, SHORT


def write(file: Path, *first: str) -> Path:
    rows = [
        {"id": str(number), "chosen": [{"role": "user", "content": one}]} for number, one in enumerate(first)
    ]
    write_rows(rows, file)
    return file


def test_only_the_beginning_of_the_openings_is_known(tmp_path: Path) -> None:
    openings = write(tmp_path / "openings.parquet", "a", "b", "c", "d")
    suite = write(tmp_path / "S2.parquet", "d", "a", "c", "a", "b")
    assert is_new(suite, openings, 2).tolist() == [True, False, True, False, False]


def test_hypotheses_on_new_pairs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_pairs, "SHORT", replace(SHORT, samples=2))
    recipe = Recipe(tmp_path, {}, replace(FULL, samples=4))
    recipe.world.mkdir()
    write(recipe.world / "openings.parquet", "a", "b", "c", "d")
    write(recipe.world / "S2.parquet", "a", "c", "b", "d")
    right = {"A0": {"S2": np.zeros((2, 4), bool)}, "A1": {"S2": np.array([[1, 1, 0, 1], [0, 1, 0, 1]], bool)}}
    found = new_first_messages(recipe, right, np.array([0, 1, 2, 3]))
    assert found == {"num_pairs": 2, "differences": {"A1 − A0": {"value": 1.0, "low": 1.0, "high": 1.0}}}
    assert new_first_messages(Recipe(tmp_path, {}, replace(FULL, samples=2)), right, np.arange(4)) is None
