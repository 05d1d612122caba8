"""The driver's side of the generate stage without a cluster: what it refuses, what it makes of failures."""

import pyarrow as pa
import pytest
from ray.exceptions import ActorUnavailableError

from music_ray.errors import InputError, StageError, TransientError
from music_ray.jobs import results as jobs_results
from music_ray.jobs.actor import MISTAKE, RESULT_SCHEMA, SKIPPED, STORAGE


class Results:
    """Stands where a dataset stands: gives tables, then fails."""

    def __init__(self, *tables, error=None):
        self.tables, self.error = tables, error

    def iter_batches(self, **options):
        yield from self.tables
        if self.error is not None:
            raise self.error


def table(*rows):
    return pa.Table.from_pylist([{"id": 1, **row} for row in rows], schema=RESULT_SCHEMA)


def test_a_users_mistake_that_an_actor_meets_ends_the_stage_with_its_message():
    bad = table({"status": "ok"}, {"status": MISTAKE, "reason": "no chat template: add one"})
    results = jobs_results._tables(Results(table({"status": "ok"}), bad))
    assert next(results).num_rows == 1
    with pytest.raises(InputError, match=r"^no chat template: add one$"):
        next(results)


def test_a_store_that_takes_no_shards_ends_the_stage_and_what_was_skipped_is_no_result():
    results = jobs_results._tables(
        Results(
            table({"status": "ok"}, {"status": SKIPPED}),
            table({"status": STORAGE, "reason": "[Errno 28] No space left on device"}),
        )
    )
    assert next(results).num_rows == 1
    with pytest.raises(
        StageError, match=r"^a shard could not be written: \[Errno 28\] No space left"
    ) as full:
        next(results)
    assert full.value.exit_code == 3


def test_a_store_that_stays_away_passes_wherever_it_was_met():
    away = "When uploading part: AWS Error SLOW_DOWN during PutObject"
    results = jobs_results._tables(Results(table({"status": STORAGE, "reason": away})))
    with pytest.raises(TransientError, match=r"^a shard could not be written: When uploading part") as ended:
        next(results)
    assert ended.value.exit_code == 75
    results = jobs_results._tables(Results(error=ActorUnavailableError(f"OSError: {away}", actor_id=None)))
    with pytest.raises(TransientError, match=r"started or kept running: .*SLOW_DOWN during PutObject"):
        next(results)


def test_engines_that_cannot_start_are_a_stage_error_with_the_last_line():
    error = ActorUnavailableError("Traceback\nRuntimeError: out of memory", actor_id=None)
    results = jobs_results._tables(Results(error=error))
    with pytest.raises(StageError, match=r"started or kept running: .*RuntimeError: out of memory") as ended:
        next(results)
    assert ended.value.exit_code == 3
