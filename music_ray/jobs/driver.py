"""The driver of a job: starts the pool, follows it, and ends it in order.

Input rows stream from Parquet through Ray Data to the actors; ids and statuses come back. Rows never
pass through here, so the driver's memory does not grow with them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from music_ray.errors import InputError, StageError
from music_ray.jobs.board import DRAIN, FLUSH, REPORT_SECONDS, start_board
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import open_epoch
from music_ray.jobs.teller import Teller
from music_ray.jobs.usage import write_usage
from music_ray.jobs.watch import Stop, Watch
from music_ray.ray_session import worker_config
from music_ray.rundir import RunDir

FLUSH_WAIT_SECONDS = 4 * REPORT_SECONDS
"""How long an ending job waits for actors to write what they have finished."""


def run_job(
    run: RunDir,
    job: Job,
    inputs: list[str],
    done: np.ndarray,
    *,
    total: int,
    watches: Sequence[Watch] = (),
) -> None:
    """Brings every input row that is not done to a shard. Ray must be up.

    Args:
        inputs: Parquet files with an int64 column `id`.
        done: sorted int64 ids of inputs that need no work.
        total: how many inputs there are.

    Raises:
        InputError: an actor met a user's mistake.
        StageError: a watch ended the job, no engine could be started, or the store takes no shards.
    """
    open_epoch(run, job.folder, job.run_epoch)
    board = start_board()
    teller = Teller(
        board,
        watches,
        name=job.name,
        unit=job.unit,
        total=total,
        done=len(done),
        stall_seconds=run.config.generate.stall_seconds,
        keep=functools.partial(write_usage, run, job.name, job.run_epoch),
    )
    try:
        with teller:
            _follow(_dataset(run, job, inputs, done, board), board, teller, watches)
    except BaseException:
        _flush(teller)
        raise
    finally:
        _account(run, job, teller)
    if teller.stop is not None:
        raise teller.stop.error


def _follow(dataset: Any, board: Any, teller: Teller, watches: Sequence[Watch]) -> None:
    """Takes results until there are no more, or until all actors have obeyed a watch."""
    obeyed_by = None
    for table in _results(dataset):
        ids, statuses, reasons = (table.column(name).to_pylist() for name in ("id", "status", "reason"))
        board.end.remote(ids)
        teller.errors.update(
            reason for status, reason in zip(statuses, reasons, strict=True) if status == "error"
        )
        for watch in watches:
            if teller.stop is None and (stop := watch.on_results(ids, statuses, reasons)):
                teller.end(stop)
        if teller.stop is None:
            continue
        if obeyed_by is None:
            obeyed_by = time.monotonic() + (FLUSH_WAIT_SECONDS if teller.stop.directive == FLUSH else np.inf)
        if _all_obeyed(teller) or time.monotonic() > obeyed_by:
            return


def _all_obeyed(teller: Teller) -> bool:
    totals = teller.look()
    return totals["obeyed"] == totals["alive"]


def _flush(teller: Teller) -> None:
    """Before the actors go (Ctrl-C, an error), what they have finished is written."""
    from ray.exceptions import RayError

    try:
        teller.end(Stop(StageError("interrupted"), FLUSH))
        deadline = time.monotonic() + FLUSH_WAIT_SECONDS
        while not _all_obeyed(teller) and time.monotonic() < deadline:
            time.sleep(0.2)
    except RayError:  # Ray is gone, and the actors with it
        return


def _account(run: RunDir, job: Job, teller: Teller) -> None:
    """What the job has used is recorded however it ended."""
    from ray.exceptions import RayError

    try:
        totals = teller.look()
    except RayError:
        totals = teller.totals
    if not totals:
        return
    write_usage(run, job.name, job.run_epoch, totals)


def _results(dataset: Any) -> Iterator[pa.Table]:
    """Result tables as tasks end.

    Raises:
        InputError: an actor met a user's mistake.
        StageError: no engine could be started, an actor is gone for good, or a shard could not be written.
    """
    from ray.exceptions import RayError, RayTaskError

    from music_ray.jobs.actor import MISTAKE, SKIPPED, STORAGE

    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            statuses = table.column("status").to_pylist()
            if MISTAKE in statuses:
                raise InputError(table.column("reason")[statuses.index(MISTAKE)].as_py())
            if STORAGE in statuses:
                reason = table.column("reason")[statuses.index(STORAGE)].as_py()
                raise StageError(
                    f"a shard could not be written: {reason}\n"
                    "see to the disk or the store, then the same command goes on"
                )
            yield table.filter(pc.not_equal(table.column("status"), SKIPPED))
    except RayTaskError:
        raise  # our own code failed: a bug, with its traceback
    except RayError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise StageError(
            f"the engines could not be started or kept running: {last_line}\n"
            "the cause stands further up; mend it, and the same command goes on"
        ) from None


def _dataset(run: RunDir, job: Job, inputs: list[str], done: np.ndarray, board: Any) -> Any:
    """The Ray Data graph: Parquet rows that are not done, cut into small tasks, mapped by the actor pool."""
    import ray

    from music_ray.jobs.actor import JobActor

    config = worker_config(job.config or run.config)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # One engine that fails to start on one bad node must not end the job; all of them do.
    context.max_consecutive_actor_init_deaths = 2
    # Loading a big model, or the first tasks on a slow engine, may take longer than Ray's half an hour.
    context.execution_no_progress_timeout_s = -1
    generate, engine = config.generate, config.engine
    rows = ray.data.read_parquet(inputs, filesystem=run.fs)
    if len(done):
        # In the object store once: as an argument it would travel with every task.
        rows = rows.map_batches(
            _pending_only,  # type: ignore[arg-type]
            fn_args=(ray.put(done),),
            batch_size=None,
            batch_format="pyarrow",
        )
    at_once = -(-generate.rows_in_flight(engine) // generate.conversations_per_task)
    # strict: else Ray Data fuses filter, cut and actors into one, and a task is a whole file.
    tasks = rows.repartition(target_num_rows_per_block=generate.conversations_per_task, strict=True)
    return tasks.map_batches(
        JobActor,
        fn_constructor_args=(job, config.model_dump_json(), board),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(
            min_size=engine.min_engines,
            max_size=engine.max_engines,
            # Tasks whose rows wait for their shard hold a place: twice as many as work at once, so that the
            # engine does not run dry meanwhile. The pool grows only where more tasks wait than run (Ray wants
            # a ratio of 1.75).
            max_concurrent_calls_per_actor=2 * at_once,
            max_tasks_in_flight_per_actor=4 * at_once,
        ),
        num_cpus=engine.cpus_per_engine,
        num_gpus=engine.gpus_per_engine or None,
    )


def _pending_only(table: pa.Table, done: Any) -> pa.Table:
    """The rows that are not done yet."""
    import ray

    from music_ray.jobs.shards import is_among

    ids = ray.get(done) if isinstance(done, ray.ObjectRef) else done
    return table.filter(pa.array(~is_among(table.column("id").to_numpy(), ids)))


__all__ = ["DRAIN", "run_job"]
