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
from music_ray.replicate.training import arms_at_once, train_arms

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
    monkeypatch.setattr(training, "run_at_once", lambda configs, *_: found.extend(configs.values()))
    recipe = replace(recipe, scale=replace(SHORT, preference_samples=samples))
    models = train_arms(recipe, {"A2": recipe.out / "A2.parquet"}, 3)
    assert models == {"A2": recipe.out / "arms" / "A2-3" / "model"}
    assert [one.name for one in found[0].data.sources] == names
    assert found[0].seed == 1003
    assert found[0].train.base_model == str(recipe.out / "base-model")
    assert json.loads((recipe.out / "base-model" / "config.json").read_text())["num_hidden_layers"] == 6
    assert found[0].data.held_out_fraction == 0


@pytest.mark.parametrize(
    ("cores", "workers", "cpus", "number"), [(2, 1, 1, 2), (2, 2, 1, 1), (1, 2, 1, 1), (8, 2, 1.5, 2)]
)
def test_as_many_arms_at_once_as_the_cores_hold(
    recipe: Recipe, cores: int, workers: int, cpus: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    words = (f"train.num_workers={workers}", f"train.cpus_per_worker={cpus}")
    assert arms_at_once(replace(recipe, overrides=words)) == number
