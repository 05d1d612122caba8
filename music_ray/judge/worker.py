"""The judge's worker in an actor: two conversations in, one verdict row out.

Knows the rows of a judge and the engine that it is configured with, not where the conversations come from.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from music_ray.config import RunConfig
from music_ray.engines import make_engine
from music_ray.engines.base import Engine
from music_ray.jobs.counting import CountingEngine
from music_ray.jobs.metrics import Metrics
from music_ray.judge.ask import Judge, Judgement
from music_ray.judge.prompt import judge_hash
from music_ray.judge.rows import OUTCOMES, VerdictRow
from music_ray.schema import content_id


class JudgeWorker:
    """A jobs Worker: one question in, one verdict out.

    Args:
        config: as judge_config makes it: its engine is the judge's, its assistant's sampling as well.
        engine: instead of the configured one, which is then not started.
    """

    def __init__(
        self,
        config: RunConfig,
        run_epoch: int,
        payload: dict[str, Any],
        metrics: Metrics,
        engine: Engine | None = None,
    ) -> None:
        self._counts: Counter[str] = Counter()
        self._engine = CountingEngine(engine or make_engine(config.engine), "judge", self._counts, metrics)
        self._judge = Judge(self._engine, config.assistant.sampling)
        self._run_seed = config.seed

    async def work(self, row: dict[str, Any]) -> VerdictRow:
        """See Worker.work."""
        seed = content_id([self._run_seed, "judge", row["id"]])
        said = await self._judge.compare(row["chosen"], row["rejected"], seed=seed)
        return self._row(row, said)

    def give_up(self, row: dict[str, Any], reason: str, detail: str) -> VerdictRow:
        """See Worker.give_up."""
        return self._row(row, Judgement(reason=reason, detail=detail))

    def counts(self) -> dict[str, int]:
        """See Worker.counts: calls, and tokens by kind, in all and as 'judge.prompt'."""
        return dict(self._counts)

    def _row(self, row: dict[str, Any], said: Judgement) -> VerdictRow:
        verdict = said.verdict
        return VerdictRow(
            id=row["id"],
            seed_id=row["seed_id"],
            status="ok" if verdict else "error",
            reason=said.reason,
            detail=said.detail,
            first=str(said.first or ""),
            second=str(said.second or ""),
            outcome=OUTCOMES[verdict] if verdict else "",
            first_answer=said.first_answer,
            second_answer=said.second_answer,
            prompt_tokens=said.prompt_tokens,
            cached_tokens=said.cached_tokens,
            completion_tokens=said.completion_tokens,
            prompt_hash=judge_hash(),
            seconds=said.seconds,
            **self._engine.describe(),
        )
