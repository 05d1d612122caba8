"""Verdicts on pairs that no judge has seen yet, made as a job: exactly once each, whatever dies.

Writes judge/KEY/ in the run folder, a folder for each judge. It does not know what follows from a verdict
(music_ray/generate/gates/judged.py does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from music_ray.config import AssistantConfig, ContrastConfig, RunConfig, UserConfig
from music_ray.engines import make_engine
from music_ray.engines.base import Engine
from music_ray.errors import StageError
from music_ray.generate.worker import CountingEngine
from music_ray.jobs.compaction import compact
from music_ray.jobs.driver import run_job
from music_ray.jobs.inputs import write_inputs
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import EPOCH_FILE, open_epoch
from music_ray.jobs.metrics import Metrics
from music_ray.jobs.shards import is_among, read_index
from music_ray.jobs.watch import ErrorRate
from music_ray.judge.ask import Judge, Judgement
from music_ray.judge.rows import (
    OUTCOMES,
    QUESTION_SCHEMA,
    VERDICT_SCHEMA,
    VerdictRow,
    Verdicts,
    pair_id,
)
from music_ray.progress import say
from music_ray.prompts import judge_hash
from music_ray.ray_session import check_pool, ensure_ray
from music_ray.rundir import RunDir
from music_ray.schema import content_id

_ROWS_PER_FILE = 1_000


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
        StageError: too many error rows, no engine, or pairs without a verdict at the end.
    """
    asked_again = ("error", None) if retry_errors else (None,)
    questions = (
        {"id": one, **{name: pair[name] for name in ("seed_id", "chosen", "rejected")}}
        for pair in pairs
        if verdicts.of(one := pair_id(pair["chosen"], pair["rejected"])) in asked_again
    )
    shards = verdicts.folder
    folder = (*shards[:-1], "in")
    if total := write_inputs(run, folder, questions, QUESTION_SCHEMA, _ROWS_PER_FILE):
        _ask(run, shards, folder, total)
        compact(run, shards)
        _check_complete(run, shards, run.read_ids(*folder))
    run.clear(*folder)
    return total


def _last_epoch(run: RunDir, folder: tuple[str, ...]) -> int:
    """Starts of this judge's job are counted apart: one start of the stage may begin it several times."""
    return int(run.read_text(*folder, EPOCH_FILE)) if run.exists(*folder, EPOCH_FILE) else 0


def _ask(run: RunDir, shards: tuple[str, ...], questions: tuple[str, ...], total: int) -> None:
    config = job_config(run.config)
    engine, generate = config.engine, config.generate
    ensure_ray(config)
    check_pool(engine, "pairs.judge.engine", "read pairs")
    say(f"pairs: asking the judge {engine.model} ({engine.kind}) about {total} pairs, in both orders")
    epoch = _last_epoch(run, shards) + 1
    open_epoch(run, shards, epoch)
    job = Job(
        name="-".join(shards[:-1]),  # its usage is kept under this name: a name for each judge
        unit="pairs",
        worker="music_ray.generate.judging:JudgeWorker",
        folder=shards,
        schema=VERDICT_SCHEMA,
        run_epoch=epoch,
    )
    run_job(
        RunDir(config),
        job,
        run.parquet_files(*questions),
        np.empty(0, dtype=np.int64),
        total=total,
        watches=[ErrorRate(generate.max_error_rate, generate.error_rate_after, run.display(*shards))],
    )


def job_config(config: RunConfig) -> RunConfig:
    """The configuration as the job's pool reads it: the engine is the judge's.

    The roles have no part in it; they get the judge's sampling, so that none of theirs has to fit its engine.
    """
    judge = config.pairs.judge
    assert judge.engine is not None
    return RunConfig(
        name=config.name,
        runs_dir=config.runs_dir,
        seed=config.seed,
        engine=judge.engine,
        assistant=AssistantConfig(sampling=judge.sampling),
        user=UserConfig(sampling=judge.sampling),
        contrast=ContrastConfig(sampling=judge.sampling),
        generate=config.generate,
        pairs=config.pairs,
        ray=config.ray,
    )


def _check_complete(run: RunDir, shards: tuple[str, ...], ids: np.ndarray) -> None:
    missing = int(np.count_nonzero(~is_among(ids, read_index(run, shards).ids)))
    if missing:
        raise StageError(
            f"{missing} of {len(ids)} pairs have no verdict in {run.display(*shards)}: the same command goes "
            "on with them"
        )


class JudgeWorker:
    """A jobs Worker: one pair in, one verdict out.

    Args:
        config: as job_config makes it: its engine is the judge's.
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
        self._judge = Judge(self._engine, config.pairs.judge.sampling)
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
