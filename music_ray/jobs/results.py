"""The results of a job's tasks as they end, taken by a driver that must also look at other things.

Ray Data's iterator waits for the next result however long that takes. Here it waits in a thread, so that
a cap or Ctrl-C is not noticed only when some task ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from music_ray.errors import InputError, StageError, TransientError
from music_ray.storage import as_user_error, is_of_store


class Results:
    """Tables of RESULT_SCHEMA from a dataset; `over` once there are no more."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._queue: queue.SimpleQueue[pa.Table | BaseException | None] = queue.SimpleQueue()
        self.over = False
        threading.Thread(target=self._run, name="job-results", daemon=True).start()

    def take(self, timeout: float) -> pa.Table | None:
        """The next table; None when there is none within so many seconds, or never again.

        Raises:
            InputError: an actor met a user's mistake.
            StageError: no engine could be started, an actor is gone for good, or a shard could not be
                written; a TransientError where a store stayed away.
        """
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        if item is None:
            self.over = True
        return item

    def _run(self) -> None:
        try:
            for table in _tables(self._dataset):
                self._queue.put(table)
            self._queue.put(None)
        except BaseException as error:  # raised by take, in the driver's own thread
            self._queue.put(error)


def _tables(dataset: Any) -> Iterator[pa.Table]:
    from ray.exceptions import RayError, RayTaskError

    from music_ray.jobs.actor import MISTAKE, SKIPPED, STORAGE

    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            statuses = table.column("status").to_pylist()
            if MISTAKE in statuses:
                raise InputError(table.column("reason")[statuses.index(MISTAKE)].as_py())
            if STORAGE in statuses:
                reason = table.column("reason")[statuses.index(STORAGE)].as_py()
                meant = as_user_error(OSError(reason))
                kind = TransientError if isinstance(meant, TransientError) else StageError
                raise kind(f"a shard could not be written: {meant}")
            yield table.filter(pc.not_equal(table.column("status"), SKIPPED))
    except RayTaskError as error:
        if is_of_store(error):  # the input could not be read
            raise as_user_error(OSError(str(error).strip().splitlines()[-1])) from None
        raise  # our own code failed: a bug, with its traceback
    except RayError as error:
        last_line = str(error).strip().splitlines()[-1]
        kind = TransientError if is_of_store(error) else StageError
        raise kind(
            f"the engines could not be started or kept running: {last_line}\n"
            "the cause stands further up; mend it, and the same command goes on"
        ) from None
