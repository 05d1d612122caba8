"""The generate stage: seeds stream through Ray Data to a pool of engine actors; shards come out.

This file is the driver. It reads which seeds there are and which rollouts shards already hold,
starts the pool, follows it, and counts at the end. Rows never pass through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from music_ray import models
from music_ray.config import EngineConfig
from music_ray.errors import InputError, StageError
from music_ray.generate.board import Teller, start_board
from music_ray.generate.ledger import SHARDS, finished_ids
from music_ray.progress import Progress, say
from music_ray.ray_session import check_resources, ensure_ray, worker_config
from music_ray.rundir import RunDir, digest_ids

SEEDS = ("seeds", "contexts")


def run_generate(run: RunDir, run_epoch: int) -> dict[str, Any]:
    """Rolls out every seed that no shard holds yet.

    Args:
        run_epoch: which start of this stage it is, from 1; part of the shards' names.

    Returns:
        counts, tokens and output for RunDir.finish_stage.

    Raises:
        InputError: there are no seeds.
        StageError: rollouts are missing at the end, or all of them failed.
    """
    seed_ids = {row["id"] for row in run.read_rows(*SEEDS, columns=["id"])}
    if not seed_ids:
        raise InputError(f"{run.display('seeds')} holds no seeds: run `music-ray seeds` first")
    finished = {int(one) for one in finished_ids(run)} & seed_ids
    pending = len(seed_ids) - len(finished)
    if finished:
        say(f"generate: {len(finished)} of {len(seed_ids)} rollouts are there already, {pending} to go")
    if pending:
        if finished:
            run.check_prompts()
        _roll_out_pending(run, run_epoch, total=len(seed_ids), done=len(finished))
    return _account(run, seed_ids)


def _roll_out_pending(run: RunDir, run_epoch: int, *, total: int, done: int) -> None:
    config = run.config
    engine = config.engine
    _check_hub_model(engine)
    ensure_ray(config)
    _check_room(engine)
    say(
        f"generate: starting {engine.min_engines} {engine.kind} engine(s) with {engine.model}, "
        f"{config.generate.turns} turns a rollout"
    )
    progress = Progress("generate", total, done=done, every_seconds=float("inf"))
    board = start_board()
    with Teller(board, progress):
        for batch in _results(_dataset(run, run_epoch, board)):
            statuses = batch.column("status").to_pylist()
            tokens = sum(batch.column("completion_tokens").to_pylist())
            errors = sum(status == "error" for status in statuses)
            progress.add(len(statuses), {"tokens": tokens, "errors": errors})
    progress.tell()


def _check_hub_model(engine: EngineConfig) -> None:
    """Reaches a model of the hub from here, before an engine on some other machine tries to.

    Raises:
        InputError: no such model, no access to it, or a chat template that can't be used.
    """
    if engine.kind == "vllm" and not Path(models.resolve_model(engine.model)).is_dir():
        from music_ray.chat import ChatFormat

        ChatFormat.load(engine.model, engine.revision)


def _check_room(engine: EngineConfig) -> None:
    """One CPU must stay free: engines that hold all of them would wait for ever for seeds to be read."""
    check_resources(
        {
            "CPU": engine.min_engines * engine.cpus_per_engine + 1,
            "GPU": engine.min_engines * engine.gpus_per_engine,
        },
        f"engine.min_engines ({engine.min_engines}), with 1 CPU to read seeds,",
        "lower engine.min_engines, engine.cpus_per_engine or engine.gpus_per_engine, raise ray.num_cpus, or "
        "add nodes",
    )


def _results(dataset: Any) -> Iterator[pa.Table]:
    """Result tables as tasks end.

    Raises:
        InputError: an actor met a user's mistake.
        StageError: no engine could be started, or an actor is gone for good.
    """
    from ray.exceptions import RayError, RayTaskError

    from music_ray.generate.actor import MISTAKE

    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            if MISTAKE in (statuses := table.column("status").to_pylist()):
                raise InputError(table.column("reason")[statuses.index(MISTAKE)].as_py())
            yield table
    except RayTaskError:
        raise  # our own code failed: a bug, with its traceback
    except RayError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise StageError(
            f"the engines could not be started or kept running: {last_line}\n"
            "the cause stands further up; mend it, and the same command goes on"
        ) from None


def _dataset(run: RunDir, run_epoch: int, board: Any) -> Any:
    """The Ray Data graph: Parquet seeds, cut into small tasks, mapped by the actor pool."""
    import ray

    from music_ray.generate.actor import RolloutActor

    config = worker_config(run.config)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # One engine that fails to start on one bad node must not end the job; all of them do.
    context.max_consecutive_actor_init_deaths = 2
    # Loading a big model, or the first tasks on a slow engine, may take longer than Ray's half an hour.
    context.execution_no_progress_timeout_s = -1
    generate, engine = config.generate, config.engine
    seeds = ray.data.read_parquet(run.parquet_files(*SEEDS), filesystem=run.fs)
    return seeds.repartition(target_num_rows_per_block=generate.conversations_per_task).map_batches(
        RolloutActor,
        fn_constructor_args=(config.model_dump_json(), run_epoch, _pool_messages(run), board),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(
            min_size=engine.min_engines,
            max_size=engine.max_engines,
            # The pool grows only where twice as many tasks wait as run (Ray wants a ratio of 1.75).
            max_tasks_in_flight_per_actor=2 * generate.tasks_in_flight,
            max_concurrent_calls_per_actor=generate.tasks_in_flight,
        ),
        num_cpus=engine.cpus_per_engine,
        num_gpus=engine.gpus_per_engine or None,
    )


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


def _account(run: RunDir, seed_ids: set[int]) -> dict[str, Any]:
    """Counts what shards hold for the present seeds: the first row of an id, the rest as duplicates."""
    seen: set[int] = set()
    errors: dict[str, int] = {}
    stopped_early: dict[str, int] = {}
    tokens = {"prompt": 0, "cached": 0, "completion": 0}
    ok = duplicates = 0
    versions = []
    for row in run.read_rows(*SHARDS, columns=["id", "status", "reason", "calls", "run_epoch"]):
        if row["id"] not in seed_ids:
            continue
        if row["id"] in seen:
            duplicates += 1
            continue
        seen.add(row["id"])
        versions.append(f"{row['id']} {row['run_epoch']}")
        for call in row["calls"]:
            for kind in tokens:
                tokens[kind] += call[f"{kind}_tokens"]
        if row["status"] == "error":
            errors[row["reason"]] = errors.get(row["reason"], 0) + 1
        else:
            ok += 1
            if row["reason"]:
                stopped_early[row["reason"]] = stopped_early.get(row["reason"], 0) + 1
    _check_account(run, seed_ids, seen, errors)
    return {
        "counts": {
            "seeds": len(seed_ids),
            "ok": ok,
            "errors": errors,
            "stopped_early": stopped_early,
            "duplicate_rows": duplicates,
        },
        "tokens": tokens,
        "output": digest_ids(versions),
    }


def _check_account(run: RunDir, seed_ids: set[int], seen: set[int], errors: dict[str, int]) -> None:
    missing = len(seed_ids - seen)
    if missing:
        raise StageError(
            f"{missing} of {len(seed_ids)} seeds have no rollout in {run.display('rollouts')}: the same "
            "command goes on with them"
        )
    if sum(errors.values()) == len(seed_ids):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(errors.items()))
        raise StageError(
            f"all {len(seed_ids)} rollouts failed ({reasons}): no pair can be made; see the `detail` column "
            f"in {run.display('rollouts')}"
        )
