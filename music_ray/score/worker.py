"""The scoring job's worker: one conversation in, its score or the reason why there is none out."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

from jinja2 import TemplateError

from music_ray.chat import ChatFormat
from music_ray.config import RunConfig
from music_ray.engines.base import Completion, RequestError
from music_ray.jobs.metrics import Metrics
from music_ray.models import resolve_model
from music_ray.score.conversations import DETAIL_LIMIT, Unscorable
from music_ray.score.longest import OVER_LENGTH
from music_ray.score.rows import ScoreRow
from music_ray.score.scorers import Scorer, make_scorer


class ScoreWorker:
    """A jobs Worker.

    Args:
        config: engine.model is the reward model's folder or its URI, engine.max_model_len the longest
            conversation.
        scorer: instead of the configured one, which is then not loaded.
    """

    def __init__(
        self,
        config: RunConfig,
        run_epoch: int,
        payload: dict[str, Any],
        metrics: Metrics,
        scorer: Scorer | None = None,
    ) -> None:
        engine = config.engine.model_copy(update={"model": resolve_model(config.engine.model)})
        config = config.model_copy(update={"engine": engine})
        self._chat = ChatFormat.load(engine.model, appends=False)
        self._max_tokens = config.engine.max_model_len
        self._metrics = metrics
        self._counts: Counter[str] = Counter()
        self._scorer = scorer or make_scorer(config)

    async def work(self, row: dict[str, Any]) -> ScoreRow:
        """See Worker.work."""
        if row["reason"]:
            return self.give_up(row, row["reason"], row["detail"])
        num_tokens = 0
        try:
            token_ids = self._token_ids(row["messages"])
            num_tokens = len(token_ids)
            if num_tokens > self._max_tokens:
                raise Unscorable(
                    OVER_LENGTH, f"{num_tokens} tokens exceed engine.max_model_len ({self._max_tokens})"
                )
            return self._row(row, num_tokens, score=await self._score(token_ids))
        except Unscorable as error:
            return self._row(row, num_tokens, reason=error.reason, detail=error.detail)

    def _token_ids(self, messages: list[Any]) -> list[int]:
        try:
            return self._chat.conversation_ids(messages)
        except TemplateError as error:
            raise Unscorable("template_refused", str(error)) from None

    async def _score(self, token_ids: list[int]) -> float:
        started = time.monotonic()
        try:
            scored = await self._scorer.score(token_ids)
        except RequestError as error:
            self._metrics.count_error("score", type(error).__name__)
            raise Unscorable(error.reason, str(error)) from None
        answer = Completion("", "stop", len(token_ids), scored.cached_tokens, 0)
        self._metrics.count_call("score", answer, time.monotonic() - started)
        self._counts.update(calls=1, prompt=len(token_ids), cached=scored.cached_tokens)
        if not math.isfinite(scored.score):
            raise Unscorable("not_finite", f"the model gave {scored.score}")
        return scored.score

    def give_up(self, row: dict[str, Any], reason: str, detail: str) -> ScoreRow:
        """See Worker.give_up."""
        return self._row(row, 0, reason=reason, detail=detail)

    def counts(self) -> dict[str, int]:
        """See Worker.counts: calls, and tokens that went in (prompt) and did not have to (cached)."""
        return dict(self._counts)

    def _row(
        self,
        row: dict[str, Any],
        num_tokens: int,
        *,
        score: float | None = None,
        reason: str = "",
        detail: str = "",
    ) -> ScoreRow:
        status = "ok" if score is not None else "error"
        return ScoreRow(row["id"], status, reason, detail[:DETAIL_LIMIT], score, num_tokens)  # type: ignore[arg-type]
