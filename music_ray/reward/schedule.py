"""The learning rate of a step: linear warm-up, then cosine, linear or constant."""

from __future__ import annotations

import math

from music_ray.config import TrainConfig


def learning_rate(train: TrainConfig, step: int) -> float:
    """Learning rate of a step (steps count from 0).

    The first warm-up step has 1/warmup_steps of the peak; cosine and linear reach 0 one step after
    the last.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
    if train.lr_schedule == "cosine":
        return train.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    if train.lr_schedule == "linear":
        return train.learning_rate * (1.0 - done)
    return train.learning_rate
