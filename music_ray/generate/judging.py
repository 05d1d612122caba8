"""Verdicts on pairs that no judge has seen yet.

Writes judge/KEY/ in the run folder, a folder for each judge (music_ray/judge/job.py). It does not know what
follows from a verdict (music_ray/generate/gates/judged.py does).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from music_ray.config import RunConfig
from music_ray.generate.budget import Budget
from music_ray.judge.job import answer_pending, ask_judge, judge_config
from music_ray.judge.rows import Verdicts, pair_id
from music_ray.judge.worker import JudgeWorker
from music_ray.revisions import with_commit
from music_ray.rundir import RunDir

__all__ = ["JudgeWorker", "job_config", "judge_pending"]


def judge_pending(
    run: RunDir, verdicts: Verdicts, pairs: Iterable[dict[str, Any]], *, retry_errors: bool
) -> int:
    """Asks about the pairs that have no verdict yet.

    Args:
        pairs: rows with seed_id, chosen and rejected.
        retry_errors: also about those on which the engine did not answer before.

    Returns:
        how many were asked about; Ray is not touched when there are none.

    Raises:
        InputError: the judge's model or endpoint can't be used.
        StageError: too many error rows, no engine, a cap of `limits`, or pairs without a verdict at the end.
    """
    asked_again = ("error", None) if retry_errors else (None,)
    questions = (
        {"id": one, **{name: pair[name] for name in ("seed_id", "chosen", "rejected")}}
        for pair in pairs
        if verdicts.of(one := pair_id(pair["chosen"], pair["rejected"])) in asked_again
    )
    return answer_pending(run, verdicts.folder, questions, _ask)


def _ask(run: RunDir, shards: tuple[str, ...], questions: tuple[str, ...], total: int) -> None:
    config = job_config(run.config)
    engine = with_commit(run, config.engine)
    ask_judge(
        run,
        config.model_copy(update={"engine": engine}),
        shards,
        questions,
        total,
        key="pairs.judge.engine",
        command="pairs",
        watches=[Budget(run, "pairs: the judge", engine)],
    )


def job_config(config: RunConfig) -> RunConfig:
    """The configuration as the judge's pool reads it (music_ray.judge.job)."""
    judge = config.pairs.judge
    assert judge.engine is not None
    made = judge_config(config, judge.engine, judge.sampling)
    return made.model_copy(update={"pairs": config.pairs})
