"""The log on Weights & Biases: refused early where it can't work, sent once where it can."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from music_ray.config import TrainConfig
from music_ray.errors import EnvironmentLacksError
from music_ray.reward.logbook import Logbook
from music_ray.reward.tracker import Tracker, check_tracker
from tests.reward.test_logbook import evaluation, result

SECRET = "0123456789abcdef0123456789abcdef01234567"


def refused(train: TrainConfig) -> bool:
    try:
        check_tracker(train)
    except EnvironmentLacksError:
        return True
    return False


@pytest.fixture
def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not find the package, although the tests' environment has it."""
    find_spec = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "wandb" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_nothing_is_needed_where_nobody_asks(
    make_run: Any, gemma2_folder: Path, without_wandb: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not refused(make_run(gemma2_folder).config.train)
    assert refused(make_run(gemma2_folder, wandb_project="rewards").config.train)


def test_a_missing_package_is_told_with_the_remedy(
    make_run: Any, gemma2_folder: Path, without_wandb: None
) -> None:
    with pytest.raises(EnvironmentLacksError) as caught:
        check_tracker(make_run(gemma2_folder, wandb_project="rewards").config.train)
    assert str(caught.value) == (
        "train.wandb_project is rewards, but the package wandb is not installed: `pip install wandb` where "
        "this command runs, or leave train.wandb_project empty: TensorBoard's files are in logs/tensorboard "
        "anyway"
    )


def test_a_missing_key_is_told_with_the_remedy(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    train = make_run(gemma2_folder, wandb_project="rewards").config.train
    with pytest.raises(EnvironmentLacksError, match="but WANDB_API_KEY is not set: export it where this"):
        check_tracker(train)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not refused(train)


@pytest.mark.slow
def test_steps_are_sent_once_and_the_key_is_written_nowhere(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    run = make_run(gemma2_folder, wandb_project="rewards")
    book = Logbook(run, 0)
    tracker = Tracker(run, "0123")
    assert tracker.follow() == 0
    book.add(1, result())
    assert tracker.follow() == 1
    book.add_evaluation(evaluation(1))
    book.add(2, result())
    assert (tracker.follow(), tracker.follow()) == (2, 0)
    tracker.close()
    book.close()
    files = [file for file in Path(run.path("logs", "wandb")).rglob("*") if file.is_file()]
    assert [file for file in files if file.suffix == ".wandb"]
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
