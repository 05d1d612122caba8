"""Questions to a judge as a job: every one is answered exactly once, whatever dies.

Writes below judge/KEY/ of a folder, a place for each judge (music_ray.judge.rows). It does not know what
follows from a verdict, nor which stage asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from music_ray.config import (
    AssistantConfig,
    ContrastConfig,
    EngineConfig,
    RunConfig,
    SamplingConfig,
    UserConfig,
)
from music_ray.errors import StageError
from music_ray.jobs.compaction import compact
from music_ray.jobs.driver import run_job
from music_ray.jobs.inputs import write_inputs
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import EPOCH_FILE, open_epoch
from music_ray.jobs.shards import is_among, read_index
from music_ray.jobs.watch import ErrorRate, Watch
from music_ray.judge.rows import QUESTION_SCHEMA, VERDICT_SCHEMA, job_name
from music_ray.progress import say
from music_ray.ray_session import check_pool, ensure_ray
from music_ray.rundir import RunDir

Folder = tuple[str, ...]
Ask = Callable[[RunDir, Folder, Folder, int], None]
"""Asks about questions: (run, folder of the shards, folder of the questions, how many there are)."""
_ROWS_PER_FILE = 1_000


def answer_pending(run: RunDir, shards: Folder, questions: Iterable[dict[str, Any]], ask: Ask) -> int:
    """Has questions answered that no shard holds an answer to.

    Args:
        shards: as verdict_folder gives it.
        questions: rows of QUESTION_SCHEMA, each id once.
        ask: brings an answer to each of them into shards; see ask_judge.

    Returns:
        how many there were; `ask` is not called when there are none.

    Raises:
        InputError: the judge's model or endpoint can't be used.
        StageError: too many error rows, no engine, or questions without an answer at the end.
    """
    folder = (*shards[:-1], "in")
    if total := write_inputs(run, folder, questions, QUESTION_SCHEMA, _ROWS_PER_FILE):
        ask(run, shards, folder, total)
        compact(run, shards)
        _check_complete(run, shards, run.read_ids(*folder))
    run.clear(*folder)
    return total


def ask_judge(
    run: RunDir,
    config: RunConfig,
    shards: Folder,
    questions: Folder,
    total: int,
    *,
    key: str,
    command: str,
    watches: Sequence[Watch] = (),
) -> None:
    """Starts the judge's pool and follows it until every question has its row.

    Args:
        config: as judge_config makes it.
        key: where the judge's engine is configured, for messages.
        command: what asks, for messages.
        watches: what may end the job besides too many errors.
    """
    engine, generate = config.engine, config.generate
    epoch = _last_epoch(run, shards) + 1
    open_epoch(run, shards, epoch)
    # The questions were put together before that, while actors of a driver that was killed could still write.
    done = _answered_since(run, shards, questions, retry_errors=generate.retry_errors)
    if len(done) == total:
        return
    ensure_ray(config)
    check_pool(engine, key, "read pairs")
    left = total - len(done)
    say(f"{command}: asking the judge {engine.model} ({engine.kind}) about {left} pairs, in both orders")
    job = Job(
        name=job_name(shards),
        unit="pairs",
        worker="music_ray.judge.worker:JudgeWorker",
        folder=shards,
        schema=VERDICT_SCHEMA,
        run_epoch=epoch,
    )
    run_job(
        RunDir(config),
        job,
        run.parquet_files(*questions),
        done,
        total=total,
        watches=[
            *watches,
            ErrorRate(generate.max_error_rate, generate.error_rate_after, run.display(*shards)),
        ],
    )


def judge_config(config: RunConfig, engine: EngineConfig, sampling: SamplingConfig) -> RunConfig:
    """The configuration as the job's pool reads it: the engine is the judge's.

    The roles have no part in it; they get the judge's sampling, so that none of theirs has to fit its engine.
    """
    return RunConfig(
        name=config.name,
        runs_dir=config.runs_dir,
        seed=config.seed,
        engine=engine,
        assistant=AssistantConfig(sampling=sampling),
        user=UserConfig(sampling=sampling),
        contrast=ContrastConfig(sampling=sampling),
        generate=config.generate,
        ray=config.ray,
    )


def _answered_since(run: RunDir, shards: Folder, questions: Folder, *, retry_errors: bool) -> np.ndarray:
    """Sorted ids of questions that a shard holds an answer to by now."""
    done = read_index(run, shards).ids_done(errors_too=not retry_errors)
    return done[is_among(done, np.sort(run.read_ids(*questions)))]


def _last_epoch(run: RunDir, folder: Folder) -> int:
    """Starts of this judge's job are counted apart: one start of the stage may begin it several times."""
    return int(run.read_text(*folder, EPOCH_FILE)) if run.exists(*folder, EPOCH_FILE) else 0


def _check_complete(run: RunDir, shards: Folder, ids: np.ndarray) -> None:
    missing = int(np.count_nonzero(~is_among(ids, read_index(run, shards).ids)))
    if missing:
        raise StageError(
            f"{missing} of {len(ids)} pairs have no verdict in {run.display(*shards)}: the same command goes "
            "on with them"
        )
