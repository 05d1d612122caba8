"""An engine that counts what it answers, for the accounts and metrics of a job."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from music_ray.config import SamplingConfig
from music_ray.engines.base import Completion, Engine, Prompt
from music_ray.jobs.metrics import Metrics


@dataclass
class CountingEngine:
    """An engine that counts what it answers to one role."""

    engine: Engine
    role: str
    counts: Counter[str]
    metrics: Metrics

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate."""
        started = time.monotonic()
        try:
            completion = await self.engine.generate(prompt, sampling, seed)
        except Exception as error:
            self.metrics.count_error(self.role, type(error).__name__)
            raise
        self.metrics.count_call(self.role, completion, time.monotonic() - started)
        counts, role = self.counts, self.role
        counts["calls"] += 1
        for kind in ("prompt", "cached", "completion"):
            number = getattr(completion, f"{kind}_tokens")
            counts[kind] += number
            counts[f"{role}.{kind}"] += number
        return completion

    def describe(self) -> dict[str, str]:
        """See Engine.describe."""
        return self.engine.describe()

    def close(self) -> None:
        """See Engine.close."""
        self.engine.close()
