"""Which configuration every run of a replication gets."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from music_ray.config import RunConfig
from music_ray.config.load import parse_yaml
from music_ray.replicate import rollouts as module
from music_ray.replicate import training
from music_ray.replicate.rollouts import Recipe, rollouts
from music_ray.replicate.scale import SHORT
from music_ray.replicate.training import train_arm

CONFIG = Path(__file__).parents[2] / "configs" / "miniature.yaml"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path, parse_yaml(CONFIG.read_text(), "miniature.yaml"), SHORT)


def asked(recipe: Recipe, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[RunConfig, list[str]]:
    """What the run `name` would be started with."""
    found = []
    monkeypatch.setattr(module, "run_stages", lambda config, stages: found.append((config, stages)))
    rollouts(recipe, name)
    return found[0]


@pytest.mark.parametrize(
    ("name", "temperature", "openings"),
    [
        ("samples", 1.4, "openings"),
        ("dev-samples", 1.4, "dev-openings"),
        ("train-samples", 1.4, "train-openings"),
        ("music", 1.0, "preferences"),
        ("last", 1.0, "preferences"),
        ("plain-2", 1.0, "preferences"),
    ],
)
def test_the_assistant_is_warmer_where_its_own_errors_are_wanted(
    recipe: Recipe, name: str, temperature: float, openings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = asked(recipe, name, monkeypatch)
    assert config.assistant.sampling.temperature == temperature
    assert config.user.sampling.temperature == 1.0
    assert config.contrast.sampling.temperature == 1.0
    assert config.data.sources[0].path == str(recipe.world / f"{openings}.parquet")


def test_only_what_becomes_d_music_is_made_into_pairs(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(recipe, "last", monkeypatch)[1] == ["seeds", "generate", "pairs"]
    assert asked(recipe, "train-samples", monkeypatch)[1] == ["seeds", "generate"]


@pytest.mark.parametrize(("samples", "names"), [(30, ["D", "D-natural", "A2"]), (0, ["D", "A2"])])
def test_every_arm_is_trained_on_d_with_its_natural_errors_and_on_its_own_pairs(
    recipe: Recipe, samples: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[RunConfig] = []

    class Run:
        def display(self, name: str) -> str:
            return name

    monkeypatch.setattr(training, "run_stages", lambda config, stages: found.append(config) or Run())
    recipe = replace(recipe, scale=replace(SHORT, preference_samples=samples))
    train_arm(recipe, "A2", recipe.out / "A2.parquet", 3)
    assert [one.name for one in found[0].data.sources] == names
    assert found[0].seed == 1003
    assert found[0].train.base_model == str(recipe.out / "base-model")
    assert json.loads((recipe.out / "base-model" / "config.json").read_text())["num_hidden_layers"] == 6
    assert found[0].data.held_out_fraction == 0
