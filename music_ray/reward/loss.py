"""The loss of preference pairs, in float32.

Knows rewards and margins; it does not know models, batches or how many pairs make a step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from music_ray.config import LossConfig


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Negative log-probability that the chosen side wins: -log sigmoid(r_chosen - r_rejected).

    Args:
        chosen: rewards of the chosen sides, [b].
        rejected: rewards of the rejected sides, [b].

    Returns:
        One float32 loss a pair, [b].
    """
    return -logsigmoid(chosen.float() - rejected.float())


def pair_losses(
    loss: LossConfig, chosen: Tensor, rejected: Tensor, margins: Tensor | np.ndarray | None = None
) -> Tensor:
    """The configured loss of each pair; Bradley-Terry's where the configuration has its defaults.

        d = r_chosen - r_rejected - margin                   (the margin is 0 unless loss.margin)
        -(1 - p) log sigmoid(d) - p log sigmoid(-d)          (p is loss.label_smoothing)
            + loss.centring (r_chosen + r_rejected)²

    Args:
        chosen: rewards of the chosen sides, [b].
        rejected: rewards of the rejected sides, [b].
        margins: by how much each pair's sides should be apart, [b]; None where no pair has a margin.

    Returns:
        One float32 loss a pair, [b].
    """
    chosen, rejected = chosen.float(), rejected.float()
    difference = chosen - rejected
    if loss.margin and margins is not None:
        difference = difference - torch.as_tensor(margins, dtype=torch.float32, device=difference.device)
    losses = -logsigmoid(difference)
    if loss.label_smoothing:
        losses = torch.lerp(losses, -logsigmoid(-difference), loss.label_smoothing)
    if loss.centring:
        losses = losses + loss.centring * (chosen + rejected) ** 2
    return losses
