"""The driver of a job: starts the pool, follows it, and ends it in order.

Input rows stream from Parquet through Ray Data to the actors; ids and statuses come back. Rows never
pass through here, so the driver's memory grows with the number of tasks alone (Ray Data keeps about 1.6 KB
a task).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.errors import StageError, TransientError
from music_ray.jobs.board import DRAIN, FLUSH, MOST_FAILED_STARTS, REPORT_SECONDS, start_board
from music_ray.jobs.job import Job
from music_ray.jobs.results import Results
from music_ray.jobs.room import rows_expected
from music_ray.jobs.teller import Teller
from music_ray.jobs.usage import write_usage
from music_ray.jobs.watch import Stop, Watch
from music_ray.ray_session import present_resources, read_parquet_in_tasks, worker_config
from music_ray.rundir import RunDir

LOOK_SECONDS = 0.5
"""How often the driver looks whether it should end, while no result comes."""
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
    """Brings every input row that is not done to a shard. Ray must be up, and the epoch open.

    `ledger.open_epoch` comes before the caller reads what is done: else an actor of an older start could
    still begin to write what this one is about to make. (A write that it has begun may still land.)

    Args:
        inputs: Parquet files with an int64 column `id`.
        done: sorted int64 ids of inputs that need no work.
        total: how many inputs there are.

    Raises:
        InputError: an actor met a user's mistake.
        StageError: a watch ended the job, no engine could be started, or the store takes no shards.
    """
    board = start_board()
    teller = Teller(
        board,
        watches,
        name=job.name,
        unit=job.unit,
        total=total,
        done=len(done),
        stall_seconds=run.config.generate.stall_seconds,
        keep=_usage_writer(run, job),
    )
    try:
        with teller:
            _follow(Results(_dataset(run, job, inputs, done, board)), board, teller, watches)
    except BaseException as error:
        _flush(teller)
        if (cause := _cause(error, board)) is not error:
            raise cause from error
        raise
    finally:
        _account(teller)
    if teller.stop is not None:
        raise teller.stop.error


def _usage_writer(run: RunDir, job: Job) -> Callable[[dict[str, Any]], None]:
    engine = (job.config or run.config).engine
    return functools.partial(write_usage, run, job.name, job.run_epoch, engine=engine)


def _follow(results: Results, board: Any, teller: Teller, watches: Sequence[Watch]) -> None:
    """Takes results until there are no more, or until all actors have obeyed a watch."""
    patience = _Patience(teller)
    while not results.over:
        table = results.take(timeout=LOOK_SECONDS)
        if teller.failed is not None:
            raise teller.failed  # without it nobody watches over the budget
        if table is not None:
            _note_results(table, board, teller, watches)
        if teller.stop is not None and patience.is_over():
            return


def _note_results(table: pa.Table, board: Any, teller: Teller, watches: Sequence[Watch]) -> None:
    ids, statuses, reasons = (table.column(name).to_pylist() for name in ("id", "status", "reason"))
    board.end.remote(ids)
    teller.errors.update(
        reason for status, reason in zip(statuses, reasons, strict=True) if status == "error"
    )
    for watch in watches:
        if teller.stop is None and (stop := watch.on_results(ids, statuses, reasons)):
            teller.end(stop)


class _Patience:
    """How long a job that ends early waits for its actors."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._since: float | None = None
        self._asked = 0.0

    def is_over(self) -> bool:
        """Whether all actors have obeyed, or will not any more: flushing takes seconds, draining as long
        as engines answer."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._asked < REPORT_SECONDS / 2:
            return False
        self._asked = now
        if _all_obeyed(self._teller):
            return True
        stop = self._teller.stop
        if stop is not None and stop.directive == DRAIN:
            return self._teller.silent_seconds(now) > 2 * self._teller.stall_seconds
        return now - self._since > FLUSH_WAIT_SECONDS


def _all_obeyed(teller: Teller) -> bool:
    from ray.exceptions import GetTimeoutError

    try:
        totals = teller.look()
    except GetTimeoutError:
        return False
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


def _cause(error: BaseException, board: Any) -> BaseException:
    """What ended the job: actors whose board is gone fail, each in a way of its own."""
    import ray
    from ray.exceptions import ActorDiedError, RayError

    if not isinstance(error, RayError):
        return error
    try:
        ray.get(board.totals.remote(), timeout=5.0)
    except ActorDiedError:
        return TransientError(
            "the process that the job's engines report to (the Ray actor Board, on the driver's node) was "
            "killed; what was finished is in the run folder, and the same command goes on"
        )
    except RayError:  # a Ray that is gone altogether has its own words
        return error
    return error


def _account(teller: Teller) -> None:
    """What the job has used is recorded however it ended."""
    from ray.exceptions import RayError

    try:
        totals = teller.look()
    except RayError:
        totals = teller.totals
    if totals:
        teller.record(totals)


def _dataset(run: RunDir, job: Job, inputs: list[str], done: np.ndarray, board: Any) -> Any:
    """The Ray Data graph: Parquet rows that are not done, cut into small tasks, mapped by the actor pool."""
    import ray

    from music_ray.jobs.actor import JobActor

    config = worker_config(job.config or run.config)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # One engine that fails to start on one bad node must not end the job; all of them do (see JobActor).
    context.max_consecutive_actor_init_deaths = MOST_FAILED_STARTS
    # Loading a big model, or the first tasks on a slow engine, may take longer than Ray's half an hour.
    context.execution_no_progress_timeout_s = -1
    generate, engine = config.generate, config.engine
    # For all of the graph: of the actors alone it would bind them, but not what Ray Data asks the autoscaler
    # for when the pool is to grow. Set in any case: the context is the process's, with other jobs before.
    context.execution_options.label_selector = dict(engine.node_labels) or None
    read_parquet_in_tasks(context)
    rows = ray.data.read_parquet(inputs, filesystem=run.fs)
    if len(done):
        # In the object store once: as an argument it would travel with every task.
        rows = rows.map_batches(
            _pending_only,  # type: ignore[arg-type]
            fn_args=(ray.put(done),),
            batch_size=None,
            batch_format="pyarrow",
        )
    # Actors know better once their engines are up, and admit as many; these queues can't be changed then.
    expected = rows_expected(job, config, present_resources(engine.node_labels))
    at_once = -(-expected // generate.conversations_per_task)
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
