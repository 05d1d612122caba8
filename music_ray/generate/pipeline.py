"""The generate stage: seeds go through the pool of engine actors, and shards of rollouts come out.

Assembles: which seeds there are, which rollouts shards already hold, what watches over the run, and
the count at the end. How rows travel is the jobs package's business.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from music_ray.errors import InputError
from music_ray.generate.account import account
from music_ray.generate.budget import Budget
from music_ray.generate.canary import Canary
from music_ray.jobs.compaction import compact
from music_ray.jobs.driver import run_job
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import open_epoch
from music_ray.jobs.shards import is_among, read_index
from music_ray.jobs.watch import ErrorRate, Watch
from music_ray.progress import say
from music_ray.ray_session import check_pool, ensure_ray
from music_ray.revisions import with_commits
from music_ray.rundir import RunDir
from music_ray.schema import ROLLOUT_SCHEMA

SEEDS = ("seeds", "contexts")
SHARDS = ("rollouts", "shards")


def run_generate(run: RunDir, run_epoch: int) -> dict[str, Any]:
    """Rolls out every seed that no shard holds yet.

    Args:
        run_epoch: which start of this stage it is, from 1; part of the shards' names.

    Returns:
        counts, tokens and output for RunDir.finish_stage.

    Raises:
        InputError: there are no seeds.
        StageError: a bound ended it, rollouts are missing at the end, or all of them failed.
    """
    seed_ids = run.read_ids(*SEEDS)
    if not len(seed_ids):
        raise InputError(f"{run.display('seeds')} holds no seeds: run `music-ray seeds` first")
    # Before the ledger is read: actors of a driver that was killed must write nothing after that.
    open_epoch(run, SHARDS, run_epoch)
    index = read_index(run, SHARDS)
    done = index.ids_done(errors_too=not run.config.generate.retry_errors)
    done = done[is_among(done, np.sort(seed_ids))]
    pending = len(seed_ids) - len(done)
    if len(done):
        say(f"generate: {len(done)} of {len(seed_ids)} rollouts are there already, {pending} to go")
    if pending:
        if len(index.ids):
            run.check_prompts()
        _roll_out_pending(run, run_epoch, seed_ids, done)
    compact(run, SHARDS)
    return account(run, SHARDS, seed_ids)


def _roll_out_pending(run: RunDir, run_epoch: int, seed_ids: np.ndarray, done: np.ndarray) -> None:
    config = with_commits(run)
    engine = config.engine
    ensure_ray(config)
    check_pool(engine, "engine", "read seeds")
    say(
        f"generate: starting {engine.min_engines} {engine.kind} engine(s) with {engine.model}, "
        f"{config.generate.turns} turns a rollout"
    )
    job = Job(
        name="generate",
        unit="rollouts",
        worker="music_ray.generate.worker:RolloutWorker",
        folder=SHARDS,
        schema=ROLLOUT_SCHEMA,
        run_epoch=run_epoch,
        config=config,
        payload={"pool": _pool_messages(run)},
    )
    generate = config.generate
    watches: list[Watch] = [
        Budget(run, "generate", engine),
        ErrorRate(generate.max_error_rate, generate.error_rate_after, run.display("rollouts")),
    ]
    if canary := Canary.of(run, SHARDS, seed_ids, done):
        watches.append(canary)
    run_job(run, job, run.parquet_files(*SEEDS), done, total=len(seed_ids), watches=watches)


def _pool_messages(run: RunDir) -> list[str]:
    """neighbour: the last user messages of D's training part, the first ones.

    Not those of the seeds: more seeds must not change what the earlier ones were contrasted with.
    """
    contrast = run.config.contrast
    if contrast.mode != "neighbour":
        return []
    messages: dict[str, None] = {}
    for row in run.read_rows("seeds", "preferences", "train", columns=["chosen"]):
        asked = [message["content"] for message in row["chosen"] if message["role"] == "user"]
        messages[asked[-1]] = None
        if len(messages) == contrast.pool_size:
            break
    if len(messages) < 2:
        raise InputError(
            "contrast.mode=neighbour needs at least 2 pairs with different last user messages: add pairs or "
            "use contrast.mode=resample"
        )
    return list(messages)
