"""The caps of `limits`: what rollouts and the judge of the pairs stage may use together, over all starts.

Reads what each job of the run folder has recorded; it does not know what the jobs do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from music_ray.config import EngineConfig
from music_ray.costs import TOKEN_KINDS, exceeded, spent
from music_ray.errors import StageError
from music_ray.jobs.board import DRAIN
from music_ray.jobs.usage import read_usage
from music_ray.jobs.watch import Stop
from music_ray.rundir import RunDir

ROLES = ("assistant", "user", "contrast", "judge")


class Budget:
    """A jobs Watch that lets what is in flight come to its end once a cap is passed: it is paid for.

    Tokens of a judge that is not configured any more are counted at the prices of the present one.

    Args:
        run: of the whole run, with the prices of all roles; the job's start has not recorded anything yet.
        what: the job, for messages.
        engine: the job's, whose actors hold GPUs and CPUs.

    Raises:
        StageError: a cap was passed by earlier starts already.
    """

    def __init__(self, run: RunDir, what: str, engine: EngineConfig) -> None:
        self._config, self._what, self._engine = run.config, what, engine
        self._before = read_usage(run)
        if reason := self._exceeded(Counter()):
            raise StageError(f"{what} does not start: {reason}")

    def on_results(self, ids: Sequence[int], statuses: Sequence[str], reasons: Sequence[str]) -> Stop | None:
        """See Watch."""
        return None

    def on_totals(self, totals: dict[str, Any]) -> Stop | None:
        """See Watch."""
        used = Counter({key: value for key, value in totals.items() if isinstance(value, int | float)})
        seconds = totals["engine_seconds"]
        used["gpu_seconds"] = seconds * self._engine.gpus_per_engine
        used["cpu_seconds"] = seconds * self._engine.cpus_per_engine
        reason = self._exceeded(used)
        return Stop(StageError(f"{self._what} ends early: {reason}"), DRAIN) if reason else None

    def _exceeded(self, now: Counter[str]) -> str:
        total = self._before + now
        tokens = {role: {kind: total[f"{role}.{kind}"] for kind in TOKEN_KINDS} for role in ROLES}
        used = spent(total["gpu_seconds"], total["cpu_seconds"], tokens, self._config)
        return exceeded(used, self._config.limits)
