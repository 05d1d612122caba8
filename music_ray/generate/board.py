"""Where engines say how far they are, so that the driver can tell while no task has ended yet.

Tasks end late (a rollout takes minutes on a laptop), so counting finished tasks alone would leave
the user looking at nothing. Counters travel here every few seconds; rows never do.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from music_ray.config import SamplingConfig
from music_ray.engines.base import Completion, Engine, Prompt
from music_ray.progress import Progress, duration, say

REPORT_SECONDS = 3.0
"""How often an actor says where it stands."""
TELL_SECONDS = 10.0
"""How often the driver says it."""


@dataclass
class CountingEngine:
    """An engine that counts what it answers."""

    engine: Engine
    counts: dict[str, int] = field(default_factory=lambda: {"calls": 0, "tokens": 0})

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate."""
        completion = await self.engine.generate(prompt, sampling, seed)
        self.counts["calls"] += 1
        self.counts["tokens"] += completion.completion_tokens
        return completion

    def describe(self) -> dict[str, str]:
        """See Engine.describe."""
        return self.engine.describe()

    def close(self) -> None:
        """See Engine.close."""
        self.engine.close()


class Board:
    """A Ray actor that keeps the latest counters of each engine actor."""

    def __init__(self) -> None:
        self._latest: dict[str, dict[str, int]] = {}

    def report(self, who: str, counts: dict[str, int]) -> None:
        """Replaces what `who` said before; its counters only grow."""
        self._latest[who] = counts

    def totals(self) -> dict[str, int]:
        """Sums over all engines that ever reported, and how many they are."""
        sums = {"engines": len(self._latest)}
        for counts in self._latest.values():
            for name, number in counts.items():
                sums[name] = sums.get(name, 0) + number
        return sums


def start_board() -> Any:
    """The board of this run, as a Ray actor that takes no CPU from engines."""
    import ray

    return ray.remote(num_cpus=0)(Board).remote()


class Teller:
    """Says a line every few seconds until it is left, from a thread of the driver."""

    def __init__(self, board: Any, progress: Progress) -> None:
        self._board, self._progress = board, progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generate-progress", daemon=True)
        self._started = time.monotonic()
        self._first_engine: float | None = None

    def __enter__(self) -> Teller:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        import ray
        from ray.exceptions import RayError

        while not self._over.wait(TELL_SECONDS):
            try:
                totals = ray.get(self._board.totals.remote(), timeout=5)
            except RayError:  # Ray is on its way down; the driver's main thread says why
                return
            say(self.line(totals, time.monotonic()))

    def line(self, totals: dict[str, int], now: float) -> str:
        """What is said: engines starting, or rollouts, calls, tokens and their rate."""
        done = f"generate: {self._progress.done}/{self._progress.total} rollouts"
        if not totals["engines"]:
            return f"{done} · engines starting · {duration(now - self._started)} so far"
        if self._first_engine is None:
            self._first_engine = now
        working = max(now - self._first_engine, REPORT_SECONDS)
        return (
            f"{done} · {totals['calls']} calls · {totals['tokens']} tokens · "
            f"{totals['tokens'] / working:.0f} tokens/s · {totals['engines']} engine(s) · "
            f"{duration(now - self._started)} so far"
        )
