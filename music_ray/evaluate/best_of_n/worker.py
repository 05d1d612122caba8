"""The worker of best-of-N: one prompt in, the conversations of all its contenders out.

The reward models are loaded in the actor, beside the engine that speaks. A pick needs its candidates' scores
before the conversation can go on; a pool of its own for the scorers would need a way for each of those small
requests between actors, with both pools' deaths to think of, and the job already has one actor whose death is
thought of. On the CPU they share its cores. On a GPU the engine must be told to leave them room
(run.check_device), for it would take 90% of it.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from music_ray import prompts
from music_ray.config import RunConfig
from music_ray.engines.base import RequestError
from music_ray.evaluate.best_of_n.checkers import load_checker
from music_ray.evaluate.best_of_n.picks import Pick, all_picks
from music_ray.evaluate.best_of_n.rows import PickedRow
from music_ray.evaluate.best_of_n.tools import RowScorer, Speakers
from music_ray.evaluate.best_of_n.tree import Tree
from music_ray.jobs.metrics import Metrics


class BestOfNWorker:
    """A jobs Worker.

    Args:
        config: of the pool.
        payload: config, the whole configuration as JSON, and models, the scorers' by digest; speakers and
            scorer, see Tools.
    """

    def __init__(self, config: RunConfig, run_epoch: int, payload: dict[str, Any], metrics: Metrics) -> None:
        self._config = RunConfig.model_validate_json(payload["config"])
        self._run_epoch = run_epoch
        self._counts: Counter[str] = Counter()
        self._checker = load_checker(self._config.best_of_n.checker)
        on_gpu = self._config.best_of_n.scorer_device == "gpu"
        # On the CPU vLLM turns off what sets the scorers' threads; on a GPU it wants its share while that is
        # free.
        if on_gpu:
            self._speakers = self._start_speakers(payload, metrics)
        self._scorers: dict[str, RowScorer] = {
            digest: payload["scorer"](RunConfig.model_validate_json(one), run_epoch, {}, metrics)
            for digest, one in payload["models"].items()
        }
        if not on_gpu:
            self._speakers = self._start_speakers(payload, metrics)

    def _start_speakers(self, payload: dict[str, Any], metrics: Metrics) -> Speakers:
        return payload["speakers"](self._config, self._counts, metrics)

    async def work(self, row: dict[str, Any]) -> PickedRow:
        """See Worker.work."""
        started = time.monotonic()
        tree = Tree(row["prompt"], self._config.best_of_n.turns, self._speakers, self._scorers)
        try:
            picks = await all_picks(
                tree, self._config.best_of_n, list(self._scorers), self._checker, row["answer"]
            )
            return self._row(row, tree, picks, "", "", started)
        except RequestError as error:
            return self._row(row, tree, [], error.reason, str(error), started)
        finally:
            await tree.close()

    def give_up(self, row: dict[str, Any], reason: str, detail: str) -> PickedRow:
        """See Worker.give_up."""
        tree = Tree(row["prompt"], self._config.best_of_n.turns, self._speakers, self._scorers)
        return self._row(row, tree, [], reason, detail, time.monotonic())

    def counts(self) -> dict[str, int]:
        """See Worker.counts: calls and tokens of the roles, and those of the scorers as 'score.calls'."""
        counts = Counter(self._counts)
        for scorer in self._scorers.values():
            counts.update({f"score.{name}": number for name, number in scorer.counts().items()})
        return dict(counts)

    def _row(
        self, row: dict[str, Any], tree: Tree, picks: list[Pick], reason: str, detail: str, started: float
    ) -> PickedRow:
        who = self._speakers.describe()  # for each row: what stands behind an endpoint's name may change
        return PickedRow(
            id=row["id"],
            prompt_id=row["prompt_id"],
            source=row["source"],
            status="error" if reason else "ok",
            reason=reason,
            detail=detail,
            prompt=row["prompt"],
            answer=row["answer"],
            picks=picks,
            num_replies=tree.said["replies"],
            num_questions=tree.said["questions"],
            prompt_tokens=tree.tokens["prompt_tokens"],
            cached_tokens=tree.tokens["cached_tokens"],
            completion_tokens=tree.tokens["completion_tokens"],
            prompt_hash=prompts.prompt_hash(),
            run_epoch=self._run_epoch,
            seconds=time.monotonic() - started,
            engine=who["engine"],
            model=who["model"],
            model_revision=who["model_revision"],
            user_model=who["user_model"],
        )
