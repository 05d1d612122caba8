"""What of a training seed is trained, scored and compared, by what is there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from music_ray.replicate import training_seed
from music_ray.replicate.clock import Clock
from music_ray.replicate.outcomes import Outcomes
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import SMOKE
from music_ray.replicate.scoring import Suites
from music_ray.replicate.training_seed import bring_to_outcomes

ARMS = ("A0", "A1", "A2")


class Stages:
    """Stand-ins for training, scoring and best-of-N that note what they are asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, prompts: int = 4) -> None:
        self.recipe = Recipe(folder, {}, replace(SMOKE, best_of_n_prompts=prompts))
        self.outcomes = Outcomes(folder / "outcomes", Suites({}, {}), dict.fromkeys((*ARMS, "suites"), 1))
        self.asked: list[Any] = []
        monkeypatch.setattr(training_seed, "arms_at_once", lambda _: 2)
        monkeypatch.setattr(training_seed, "train_arms", self.train)
        monkeypatch.setattr(training_seed, "score_suites", self.score)
        monkeypatch.setattr(training_seed, "compare_picks", self.compare)

    def train(self, recipe: Recipe, files: dict[str, Path], seed: int) -> dict[str, Path]:
        models = {arm: recipe.out / "arms" / f"{arm}-{seed}" / "model" for arm in files}
        for model in models.values():
            model.mkdir(parents=True, exist_ok=True)
            (model / "model.safetensors").touch()
        self.asked.append(("train", list(files)))
        return models

    def score(self, model: Path, *_: Any) -> dict[str, np.ndarray]:
        self.asked.append(("score", model.parent.name))
        return {"S1": np.array([True])}

    def compare(self, _: Recipe, first: Path, second: Path, seed: int) -> pa.Table:
        self.asked.append(("compare", first.parent.name, second.parent.name))
        return pa.table({"value": [1.0]})

    def bring(self) -> list[Any]:
        """What is asked for, for training seed 2."""
        self.asked.clear()
        files = {arm: Path(f"{arm}.parquet") for arm in ARMS}
        clock = Clock(self.recipe.out / "seconds.json")
        bring_to_outcomes(self.recipe, self.outcomes, files, 2, tools=None, clock=clock)  # type: ignore[arg-type]
        return list(self.asked)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(tmp_path, monkeypatch)


FIRST = [("train", ["A0", "A1"]), ("score", "A0-2"), ("score", "A1-2")]
LAST = [("train", ["A2"]), ("score", "A2-2")]
COMPARED = ("compare", "A1-2", "A0-2")


def test_everything_once(stages: Stages) -> None:
    assert stages.bring() == [*FIRST, COMPARED, *LAST]
    assert stages.bring() == []


def test_without_prompts_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(tmp_path, monkeypatch, prompts=0)
    assert stages.bring() == [*FIRST, *LAST]
    assert stages.bring() == []


def test_an_arm_whose_outcome_is_gone_is_made_alone(stages: Stages) -> None:
    stages.bring()
    (stages.outcomes.folder / "A2-2.parquet").unlink()
    assert stages.bring() == [("train", ["A2"]), ("score", "A2-2")]


def test_picks_are_compared_again_when_a_picker_is_scored_again(stages: Stages) -> None:
    stages.bring()
    (stages.outcomes.folder / "A1-2.parquet").unlink()
    assert stages.bring() == [("train", ["A0", "A1"]), ("score", "A1-2"), COMPARED]


def test_missing_picks_need_models_and_a_model_made_anew_is_scored_anew(stages: Stages) -> None:
    stages.bring()
    (stages.outcomes.folder / "picks-2.parquet").unlink()
    assert stages.bring() == [("train", ["A0", "A1"]), COMPARED]
    (stages.outcomes.folder / "picks-2.parquet").unlink()
    (stages.recipe.out / "arms" / "A0-2" / "model" / "model.safetensors").unlink()
    assert stages.bring() == [("train", ["A0", "A1"]), ("score", "A0-2"), COMPARED]
