"""Whether a node of this training is about to be taken away, so that a checkpoint is worth its time now.

Ray Train asks Ray every few seconds which nodes are being drained (a spot node that got its notice,
say), tells its workers, and starts them again elsewhere once the node is gone, on a count of its own
(train.max_failures is for workers that die). What is left to do is to save in time. Who drains the node
is the cluster's affair: `ray drain-node`, KubeRay, or a script that listens to the cloud's notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

_ASK_EVERY_SECONDS = 2.0
"""Cloud notices leave 30 seconds or more, and Ray Train itself asks every 5 seconds."""


class PreemptionWatch:
    """Asks after each step whether a node was announced to go; one answer for all ranks."""

    def __init__(
        self,
        device: Any = "cpu",
        *,
        ask: Callable[[], Sequence[str]] | None = None,
        every_seconds: float = _ASK_EVERY_SECONDS,
    ) -> None:
        """
        Args:
            device: where the ranks' collectives take their tensors from.
            ask: gives the ids of the training's nodes that are about to go, the same on every rank; it is
                called on all ranks together. Ray Train's answer when empty; none outside of Ray Train.
            every_seconds: time between two questions, by rank 0's clock.
        """
        self._device, self._every_seconds = device, every_seconds
        self._ask = ask or _ray_train_or_nobody()
        self._asked = time.monotonic()
        self._known: set[str] = set()

    def imminent(self) -> bool:
        """Whether a checkpoint should be saved now: once for each node that is announced to go.

        Training goes on afterwards, for as long as the node is there. Collective: every rank must call it
        after the same step.
        """
        if not self._all_ask_now():
            return False
        nodes = set(self._ask())
        new = nodes - self._known
        self._known |= nodes
        return bool(new)

    def _all_ask_now(self) -> bool:
        """Rank 0's clock decides for all: the question itself is a meeting of all ranks."""
        import torch
        import torch.distributed as dist

        due = time.monotonic() - self._asked >= self._every_seconds
        together = torch.tensor([int(due)], device=self._device)
        dist.broadcast(together, src=0)
        if not together.item():
            return False
        self._asked = time.monotonic()
        return True


def _ray_train_or_nobody() -> Callable[[], Sequence[str]]:
    import ray.train

    try:
        ray.train.get_context()
    except RuntimeError:  # outside of Ray Train, where tests run the same code
        return lambda: ()
    return _leaving_nodes


def _leaving_nodes() -> Sequence[str]:
    """Ids of this training's nodes that are being drained; Ray Train's answer is rank 0's for all."""
    import ray.train

    info = ray.train.get_preemption_info()
    return info.preempted_node_ids if info is not None else ()
