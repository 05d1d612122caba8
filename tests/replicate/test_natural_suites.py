"""S2 and the development split's final turns, from samples with errors."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from music_ray.errors import StageError
from music_ray.miniature.check import wrong_turns
from music_ray.miniature.split_gate import first_foreign_list
from music_ray.replicate import natural_suites
from music_ray.replicate.natural_suites import (
    RATES,
    write_dev_early,
    write_natural_early,
    write_natural_final,
    write_natural_preferences,
)
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import SHORT
from music_ray.replicate.world import NATURAL_PREFERENCES
from music_ray.schema import count_user_turns
from tests.miniature.test_natural import sample


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    recipe = Recipe(tmp_path, {}, SHORT)
    recipe.world.mkdir()
    return recipe


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were asked for; each has the same samples of four turns."""
    asked: list[str] = []
    monkeypatch.setattr(natural_suites, "rollouts", lambda recipe, name: asked.append(name))
    found = [one for seed in range(6000) if count_user_turns(one := sample(seed)) == 4]
    monkeypatch.setattr(natural_suites, "samples", lambda run: list(enumerate(found)))
    return asked


def test_early_errors_have_both_lengths_and_rates_beside_them(recipe: Recipe, said: list[str]) -> None:
    write_natural_early(recipe, recipe.world / "S2.parquet")
    rows = pq.read_table(recipe.world / "S2.parquet").to_pylist()
    assert said == ["samples"]
    assert {row["source"] for row in rows} == {"S2"}
    assert {(row["num_turns"], row["error_turn"]) for row in rows} == {(3, 1), (3, 2), (4, 1), (4, 2), (4, 3)}
    rates = json.loads((recipe.world / RATES).read_text())
    assert list(rates) == ["1", "2", "3", "4"]  # of whole samples, not of those that were cut to three turns
    assert sum(rates["4"].values()) == sum(rates["1"].values())


def test_early_errors_of_the_development_split_bear_their_suite_s_name(
    recipe: Recipe, said: list[str]
) -> None:
    for name, write in (
        ("S2", write_natural_early),
        ("dev_S2", lambda *two: write_dev_early(*two, "dev_S2")),
    ):
        write(recipe, recipe.world / f"{name}.parquet")
    assert said == ["samples", "dev-samples"]
    ours, theirs = (pq.read_table(recipe.world / f"{name}.parquet").to_pylist() for name in ("dev_S2", "S2"))
    assert {row["source"] for row in ours} == {"dev_S2"}
    assert not {row["id"] for row in ours} & {row["id"] for row in theirs}  # all are scored as one set
    assert all(0 < row["error_turn"] < row["num_turns"] for row in ours)


def test_final_errors_are_in_the_last_turn_and_bear_their_suite_s_name(
    recipe: Recipe, said: list[str]
) -> None:
    write_natural_final(recipe, recipe.world / "dev_natural.parquet", "dev_natural")
    rows = pq.read_table(recipe.world / "dev_natural.parquet").to_pylist()
    assert said == ["dev-samples"]
    assert {row["source"] for row in rows} == {"dev_natural"}
    assert {(row["num_turns"], row["error_turn"]) for row in rows} == {(1, 1), (2, 2), (3, 3), (4, 4)}
    assert all(wrong_turns(row["rejected"]) == [row["num_turns"]] for row in rows)


def test_natural_pairs_of_d_are_final_turns_with_lists_of_the_training_split(
    recipe: Recipe, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = [sample(seed, "train" if seed % 3 else "suites") for seed in range(1500)]
    monkeypatch.setattr(natural_suites, "samples", lambda run: list(enumerate(mixed)))
    write_natural_preferences(recipe)
    rows = pq.read_table(recipe.world / NATURAL_PREFERENCES).to_pylist()
    assert said == ["train-samples"]
    assert len(rows) > 100
    assert all(wrong_turns(row["rejected"]) == [row["num_turns"]] for row in rows)
    assert all(wrong_turns(row["chosen"]) == [] for row in rows)
    assert not any(first_foreign_list(row["rejected"], "train") for row in rows)
    write_natural_preferences(recipe)
    assert said == ["train-samples"]  # what is there stays


def test_samples_without_errors_are_said(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natural_suites, "rollouts", lambda recipe, name: None)
    monkeypatch.setattr(natural_suites, "samples", lambda run: [])
    with pytest.raises(StageError, match=r"^S2: no natural error for every number of turns among 0 rollouts"):
        write_natural_early(recipe, recipe.world / "S2.parquet")
    assert not (recipe.world / "S2.parquet").exists()
