"""The conversations of all prompts as a job, and reading them back.

Knows which prompts have a row; what happens inside a row is the worker's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from music_ray.config import RunConfig
from music_ray.errors import StageError
from music_ray.evaluate.best_of_n.prompts import PROMPT_SCHEMA, Prompts
from music_ray.evaluate.best_of_n.questions import Row
from music_ray.evaluate.best_of_n.rows import PICKED_SCHEMA
from music_ray.evaluate.best_of_n.settings import pool_config
from music_ray.evaluate.best_of_n.tools import Tools
from music_ray.jobs.compaction import compact
from music_ray.jobs.driver import run_job
from music_ray.jobs.inputs import write_inputs
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import open_epoch
from music_ray.jobs.shards import is_among, read_index, read_rows
from music_ray.jobs.watch import ErrorRate
from music_ray.progress import say
from music_ray.ray_session import check_pool, ensure_ray, worker_config
from music_ray.rundir import RunDir

INPUTS = ("conversations", "in")
CONVERSATIONS = ("conversations", "shards")
_ROWS_PER_FILE = 1_000


def converse(
    run: RunDir, epoch: int, prompts: Prompts, scorers: dict[str, RunConfig], tools: Tools
) -> dict[str, Any]:
    """Makes the row of every prompt that no shard holds yet.

    Args:
        epoch: which start in this folder it is, from 1.
        scorers: the configurations of the reward models' scorers, by digest.

    Returns:
        counts of the present prompts' rows: ok, errors by reason, replies, questions, and tokens by kind.

    Raises:
        StageError: a bound ended it, rows are missing at the end, or all of them failed.
    """
    # Before the ledger is read: actors of a driver that was killed must write nothing after that.
    open_epoch(run, CONVERSATIONS, epoch)
    ids = _ids(prompts)
    done = read_index(run, CONVERSATIONS).ids_done(errors_too=not run.config.generate.retry_errors)
    done = done[is_among(done, ids)]
    if len(done):
        say(f"best-of-n: {len(done)} of {len(ids)} prompts are done already, {len(ids) - len(done)} to go")
    if len(done) < len(ids):
        write_inputs(run, INPUTS, prompts.rows, PROMPT_SCHEMA, _ROWS_PER_FILE)
        _run_job(run, epoch, done, len(ids), scorers, tools)
        run.clear(*INPUTS)
    compact(run, CONVERSATIONS)
    return _counts(run, ids)


def picked_rows(run: RunDir, prompts: Prompts) -> Iterator[Row]:
    """The rows of the prompts whose conversations have come to their end; the order is the same each time."""
    index = read_index(run, CONVERSATIONS).only(_ids(prompts))
    for row in read_rows(run, index, ["id", "status", "picks"]):
        if row["status"] == "ok":
            yield row


def _ids(prompts: Prompts) -> np.ndarray:
    return np.sort(np.array([row["id"] for row in prompts.rows], dtype=np.int64))


def _run_job(
    run: RunDir, epoch: int, done: np.ndarray, total: int, scorers: dict[str, RunConfig], tools: Tools
) -> None:
    config = pool_config(run.config)
    engine, generate, section = config.engine, config.generate, config.best_of_n
    ensure_ray(config)
    check_pool(engine, "engine", "read prompts")
    say(
        f"best-of-n: starting {engine.min_engines} engine(s) ({run.config.engine.kind}, {engine.model}), "
        f"each with {len(scorers)} reward model(s), up to {max(section.n)} candidates, {section.turns} turns"
    )
    job = Job(
        name="best-of-n",
        unit="prompts",
        worker="music_ray.evaluate.best_of_n.worker:BestOfNWorker",
        folder=CONVERSATIONS,
        schema=PICKED_SCHEMA,
        run_epoch=epoch,
        config=config,
        payload={
            "config": worker_config(run.config).model_dump_json(),
            "models": {name: one.model_dump_json() for name, one in scorers.items()},
            "speakers": tools.speakers,
            "scorer": tools.scorer,
        },
    )
    watch = ErrorRate(generate.max_error_rate, generate.error_rate_after, run.display(*CONVERSATIONS))
    run_job(run, job, run.parquet_files(*INPUTS), done, total=total, watches=[watch])


def _counts(run: RunDir, ids: np.ndarray) -> dict[str, Any]:
    index = read_index(run, CONVERSATIONS).only(ids)
    if missing := len(ids) - len(index.ids):
        raise StageError(
            f"{missing} of {len(ids)} prompts have no row in {run.display(*CONVERSATIONS)}: the same command "
            "goes on with them"
        )
    sums: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    names = ("num_replies", "num_questions", "prompt_tokens", "cached_tokens", "completion_tokens")
    for row in read_rows(run, index, ["status", "reason", *names]):
        if row["status"] != "ok":
            errors[row["reason"]] += 1
        sums.update({name: row[name] for name in names})
    if errors.total() == len(ids):
        reasons = ", ".join(f"{reason} {count}" for reason, count in errors.most_common())
        raise StageError(
            f"all {len(ids)} prompts failed ({reasons}): see the `detail` column in "
            f"{run.display(*CONVERSATIONS)}, mend the cause, and run the same command with "
            "generate.retry_errors=true"
        )
    return {"ok": len(ids) - errors.total(), "errors": dict(sorted(errors.items())), **sums}
