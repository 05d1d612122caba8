"""Jobs on a real local Ray: deadly rows, errors, words to all actors. Rows are counted in the shards."""

import os
import signal
from dataclasses import replace

import pyarrow as pa
import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import InputError, StageError, TransientError
from music_ray.jobs import driver
from music_ray.jobs.board import DRAIN, start_board
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import open_epoch
from music_ray.jobs.shards import read_index, read_rows
from music_ray.jobs.usage import read_usage
from music_ray.jobs.watch import ErrorRate, Stop
from music_ray.rundir import RunDir
from music_ray.schema import ROLLOUT_SCHEMA, to_table
from tests.jobs.test_ledger import ROW
from tests.jobs.workers import TestWorker

pytestmark = pytest.mark.slow
SHARDS = ("rollouts", "shards")
assert TestWorker


@pytest.fixture(scope="module")
def ray_up():
    import ray

    from music_ray.ray_session import ensure_ray

    ensure_ray(resolve_config({"name": "t", "ray": {"num_cpus": 3}}))
    yield
    ray.shutdown()


def run_of(tmp_path, num_rows, engine=None, **generate):
    settings = {"conversations_per_task": 4, "tasks_in_flight": 2, "flush_rows": 8, "flush_seconds": 0.3}
    run = RunDir(
        resolve_config(
            {
                "name": "t",
                "runs_dir": str(tmp_path),
                "engine": {"kind": "scripted", **(engine or {})},
                "generate": {**settings, **generate},
            }
        )
    )
    run.write_table(pa.table({"id": pa.array(range(num_rows), type=pa.int64())}), "in", "rows.parquet")
    return run


def go(run, *, epoch=1, watches=(), total=0, **payload):
    job = Job("test", "rows", "tests.jobs.workers:TestWorker", SHARDS, ROLLOUT_SCHEMA, epoch, payload)
    open_epoch(run, SHARDS, epoch)
    done = read_index(run, SHARDS).ids
    driver.run_job(run, job, run.parquet_files("in"), done, total=total, watches=watches)


def outcome(run):
    rows = list(run.read_rows(*SHARDS))
    assert len(rows) == len({row["id"] for row in rows}), "an id came out twice"
    return {row["id"]: (row["status"], row["reason"]) for row in rows}


@pytest.mark.parametrize("how", ["declared", pytest.param("killed", marks=pytest.mark.faults)])
def test_the_one_row_that_kills_engines_is_found_and_all_others_come_out(ray_up, tmp_path, how):
    run = run_of(tmp_path, 40)
    go(run, deadly=[17], how=how, total=40)
    rows = outcome(run)
    assert rows.pop(17) == ("error", "engine_died")
    assert rows == {one: ("ok", "") for one in range(40) if one != 17}
    detail = {row["id"]: row["detail"] for row in run.read_rows(*SHARDS)}[17]
    assert detail == ("3 engines died with it" if how == "declared" else "9 engines died with it")


def test_one_engines_death_gives_no_row_up_however_many_were_in_it(ray_up, tmp_path):
    """Every waiting row hears of the death; it is one death all the same."""
    run = run_of(tmp_path, 120, tasks_in_flight=6)
    go(run, dies_once=str(tmp_path / "died"), total=120)
    assert (tmp_path / "died").exists()
    assert outcome(run) == dict.fromkeys(range(120), ("ok", ""))
    usage = read_usage(run, "test")
    assert usage["ok"] == 120 and usage["error"] == 0


def starts_of(tmp_path):
    (folder := tmp_path / "starts").mkdir()
    return folder, lambda: len(list(folder.glob("start-*")))


def test_a_mistake_that_every_engine_would_meet_ends_the_job_at_once_with_its_message(ray_up, tmp_path):
    run = run_of(tmp_path, 40)
    folder, starts = starts_of(tmp_path)
    with pytest.raises(InputError, match=r"^the hub is away for start 0$"):
        go(run, starts=str(folder), how="all", total=40)
    assert starts() == 1


def test_an_engine_that_does_not_join_one_at_work_is_tried_again(ray_up, tmp_path):
    run = run_of(tmp_path, 300, engine={"min_engines": 2, "max_engines": 2})
    folder, starts = starts_of(tmp_path)
    go(run, starts=str(folder), how="the second", seconds=0.5, total=300)
    assert outcome(run) == dict.fromkeys(range(300), ("ok", ""))
    assert starts() == 3


@pytest.mark.faults
def test_an_engine_that_does_not_come_up_again_after_its_death_is_tried_again(ray_up, tmp_path):
    """Its tasks wait for it: Ray Data gives none of them to another engine."""
    run = run_of(tmp_path, 40)
    folder, starts = starts_of(tmp_path)
    go(run, starts=str(folder), how="after death", times=2, total=40)
    assert outcome(run) == dict.fromkeys(range(40), ("ok", ""))
    assert starts() == 4


@pytest.mark.faults
def test_engines_that_do_not_start_again_time_after_time_end_the_job(ray_up, tmp_path):
    run = run_of(tmp_path, 40)
    folder, starts = starts_of(tmp_path)
    with pytest.raises(
        StageError, match=r"(?s)^the engines could not be started or kept .*away for start 3\n"
    ):
        go(run, starts=str(folder), how="after death", times=9, total=40)
    assert starts() == 4


def test_too_many_errors_end_the_job_and_what_is_finished_is_kept(ray_up, tmp_path):
    run = run_of(tmp_path, 800, max_error_rate=0.5, error_rate_after=10)
    watch = ErrorRate(0.5, 10, "there")
    with pytest.raises(StageError, match=r"rows failed \(bad \d+\), generate.max_error_rate is 0.5"):
        go(run, failing=range(800), seconds=0.05, watches=[watch], total=800)
    assert 10 <= len(outcome(run)) < 800
    go(run, epoch=2, total=800)  # what failed stays failed, the rest is made
    rows = outcome(run)
    assert len(rows) == 800 and {status for status, _ in rows.values()} == {"ok", "error"}


class Enough:
    """Stops after so many rows, and lets what is in flight come out."""

    def __init__(self, number):
        self.number, self.seen = number, 0

    def on_results(self, ids, statuses, reasons):
        self.seen += len(ids)
        return Stop(StageError("that is enough"), DRAIN) if self.seen >= self.number else None

    def on_totals(self, totals):
        return None


def test_draining_finishes_what_is_in_flight_and_begins_nothing(ray_up, tmp_path):
    run = run_of(tmp_path, 400)
    with pytest.raises(StageError, match=r"^that is enough$"):
        go(run, seconds=0.3, watches=[Enough(8)], total=400)
    made = len(outcome(run))
    assert 8 <= made < 400
    assert read_usage(run, "test")["engine_seconds"] > 0
    assert read_usage(run) == read_usage(run, "test") and read_usage(run, "tes") == {}
    go(run, epoch=2, total=400)
    assert len(outcome(run)) == 400
    epochs = [row["run_epoch"] for row in read_rows(run, read_index(run, SHARDS), ["run_epoch"])]
    assert len(epochs) == 400


def test_a_restart_takes_what_is_left_in_small_tasks_again(ray_up, tmp_path):
    """Ray Data would fuse reading, filtering and actors into one task a file, if it were let."""
    run = run_of(tmp_path, 100)
    run.write_table(run_table(range(40)), *SHARDS, "e0001-a.parquet")
    go(run, epoch=2, total=100)
    assert len(outcome(run)) == 100
    assert read_usage(run, "test")["tasks"] == 15


def test_a_killed_board_ends_the_job_in_words_and_it_goes_on(ray_up, tmp_path, monkeypatch):
    run = run_of(tmp_path, 200)
    boards = []

    def start_and_keep():
        boards.append(start_board())
        return boards[0]

    class KillBoard(Enough):
        """kill -9 of the board's process once some rows are there."""

        def on_results(self, ids, statuses, reasons):
            stop = super().on_results(ids, statuses, reasons)
            if stop is not None and self.number:
                self.number = 0
                import ray

                os.kill(ray.get(boards[0].__ray_call__.remote(lambda board: os.getpid())), signal.SIGKILL)

    monkeypatch.setattr(driver, "start_board", start_and_keep)
    with pytest.raises(TransientError, match=r"the Ray actor Board, on the driver's node\) was killed"):
        go(run, seconds=0.1, watches=[KillBoard(8)], total=200)
    assert 0 < len(outcome(run)) < 200
    monkeypatch.undo()
    go(run, epoch=2, total=200)
    assert outcome(run) == dict.fromkeys(range(200), ("ok", ""))


def run_table(ids):
    return to_table([replace(ROW, id=one, status="ok") for one in ids], ROLLOUT_SCHEMA)


def test_a_mistake_in_the_worker_is_a_bug_with_its_traceback(ray_up, tmp_path):
    from ray.exceptions import RayTaskError

    run = run_of(tmp_path, 4)
    with pytest.raises(RayTaskError, match="int"):
        go(run, seconds="a string", total=4)
