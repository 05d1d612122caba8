"""The generate stage's worker: the engines of all roles, and the rollouts on them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from music_ray.config import RunConfig
from music_ray.engines import make_engines
from music_ray.engines.base import RoleEngines
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, error_row, roll_out
from music_ray.jobs.counting import CountingEngine
from music_ray.jobs.metrics import Metrics
from music_ray.schema import Rollout, seed_from_row


class RolloutWorker:
    """A jobs Worker: one seed in, one rollout out.

    Args:
        payload: pool, the messages of the neighbour mode's pool.
    """

    def __init__(self, config: RunConfig, run_epoch: int, payload: dict[str, Any], metrics: Metrics) -> None:
        contrast = config.contrast
        pool = None
        if contrast.mode == "neighbour":
            pool = NeighbourPool(payload["pool"], contrast.max_similarity)
        engines = make_engines(config)
        self._counts: Counter[str] = Counter()
        counting = RoleEngines(
            **{
                role: CountingEngine(getattr(engines, role), role, self._counts, metrics)
                for role in ("assistant", "user", "contrast")
            }
        )
        self._cast = Cast.of(config, counting, pool, run_epoch)

    async def work(self, row: dict[str, Any]) -> Rollout:
        """See Worker.work."""
        return await roll_out(seed_from_row(row), self._cast)

    def give_up(self, row: dict[str, Any], reason: str, detail: str) -> Rollout:
        """See Worker.give_up."""
        return error_row(seed_from_row(row), self._cast, reason, detail)

    def counts(self) -> dict[str, int]:
        """See Worker.counts: calls, and tokens by kind, in all and by role."""
        return dict(self._counts)
