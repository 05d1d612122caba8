"""The Bradley-Terry loss, in float32."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Negative log-probability that the chosen side wins: -log sigmoid(r_chosen - r_rejected).

    Args:
        chosen: rewards of the chosen sides, [b].
        rejected: rewards of the rejected sides, [b].

    Returns:
        One float32 loss a pair, [b].
    """
    return -logsigmoid(chosen.float() - rejected.float())
