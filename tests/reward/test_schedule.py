from __future__ import annotations

import pytest

from music_ray.config import TrainConfig
from music_ray.reward.schedule import learning_rate


def rates(schedule: str, warmup: int = 0) -> list[float]:
    train = TrainConfig(steps=4 + warmup, warmup_steps=warmup, learning_rate=1.0, lr_schedule=schedule)
    return [learning_rate(train, step) for step in range(train.steps)]


def test_cosine() -> None:
    assert rates("cosine") == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_linear() -> None:
    assert rates("linear") == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_constant_after_warmup() -> None:
    assert rates("constant", warmup=2) == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
