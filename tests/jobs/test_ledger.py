"""The shards are the ledger: what is flushed when, and what a restart sees."""

import asyncio
import dataclasses
import errno

import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import InputError
from music_ray.jobs.ledger import EPOCH_FILE, FencedError, ShardWriter, WrittenRows, check_epoch, open_epoch
from music_ray.jobs.shards import read_index
from music_ray.rundir import RunDir
from music_ray.schema import ROLLOUT_SCHEMA, Rollout, rollout_from_row

ROW = Rollout(
    id=1, source="s", conversation=2, status="error", reason="empty_reply", detail="d",
    context=[{"role": "user", "content": "a"}], chosen=[], rejected=[], num_generated_turns=0,
    first_contrast_turn=0, contrasts=[], calls=[], engine="scripted", model="m", model_revision="",
    prompt_hash="h", run_epoch=1, seconds=0.5,
)  # fmt: skip


SHARDS = ("rollouts", "shards")


@pytest.fixture
def run(tmp_path):
    run = RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path)}))
    open_epoch(run, SHARDS, 1)
    return run


def rows(*ids):
    return [dataclasses.replace(ROW, id=one) for one in ids]


def writer(run, epoch=1, rows=1000, seconds=100.0):
    return ShardWriter(run, SHARDS, ROLLOUT_SCHEMA, epoch, flush_rows=rows, flush_seconds=seconds)


def ids_done(run):
    return read_index(run, SHARDS).ids.tolist()


def test_flushed_rows_are_read_back_as_they_were(run):
    async def scenario():
        ledger = writer(run)
        ledger.begin(1)
        await ledger.add(ROW)  # the last one in flight: flushed at once

    asyncio.run(scenario())
    assert [rollout_from_row(row) for row in run.read_rows("rollouts")] == [ROW]
    assert ids_done(run) == [1]


def test_a_shard_is_written_after_flush_rows_and_not_before(run):
    async def scenario():
        ledger = writer(run, rows=3)
        ledger.begin(100)
        first = [asyncio.create_task(ledger.add(row)) for row in rows(1, 2)]
        await asyncio.sleep(0.2)
        assert ids_done(run) == [] and not any(task.done() for task in first)
        await ledger.add(rows(3)[0])
        await asyncio.wait_for(asyncio.gather(*first), timeout=1)
        assert ids_done(run) == [1, 2, 3] and ledger.shards == 1

    asyncio.run(scenario())


def test_what_waits_is_flushed_in_time_while_no_other_row_ends(run):
    async def scenario():
        ledger = writer(run, seconds=0.2)
        ledger.begin(100)
        for first in (1, 2):  # the clock starts again after each flush
            await asyncio.wait_for(ledger.add(rows(first)[0]), timeout=5)
            assert ids_done(run) == list(range(1, first + 1))

    asyncio.run(scenario())


def test_rows_that_come_while_a_shard_is_written_are_not_lost(run):
    async def scenario():
        ledger = writer(run, rows=2)
        ledger.begin(9)
        await asyncio.gather(*(ledger.add(row) for row in rows(*range(9))))

    asyncio.run(scenario())
    assert sorted(row["id"] for row in run.read_rows("rollouts")) == list(range(9))


def test_temporary_files_are_no_data(run):
    asyncio.run(_write(run, 1))
    shard = run.parquet_files("rollouts")[0]
    folder, _, name = shard.rpartition("/")
    with open(shard, "rb") as source, open(f"{folder}/.{name}.123.tmp", "wb") as target:
        target.write(source.read()[:100])
    with open(f"{folder}/.half.parquet", "wb") as target:
        target.write(b"PAR1")
    assert ids_done(run) == [1]


async def _write(run, *ids, epoch=1):
    ledger = writer(run, epoch)
    ledger.begin(len(ids))
    await asyncio.gather(*(ledger.add(row) for row in rows(*ids)))


def test_an_actor_of_an_older_start_writes_nothing_any_more(run):
    open_epoch(run, SHARDS, 2)
    with pytest.raises(FencedError, match="start 1 is over: another one has begun"):
        asyncio.run(_write(run, 1))
    asyncio.run(_write(run, 2, epoch=2))
    assert ids_done(run) == [2]


class Failing(RunDir):
    """A store that fails so many times before it works."""

    failures = 0
    number = 5

    def write_table(self, table, *parts):
        if type(self).failures > 0:
            type(self).failures -= 1
            raise OSError(self.number, "the store says 500")
        return super().write_table(table, *parts)


def failing(run, failures, number=5):
    Failing.failures, Failing.number = failures, number
    return Failing(run.config)


def test_a_store_that_stumbles_is_tried_again(run, monkeypatch):
    monkeypatch.setattr("music_ray.jobs.ledger.time.sleep", lambda seconds: None)
    asyncio.run(_write(failing(run, 3), 1, 2))
    assert ids_done(run) == [1, 2]


@pytest.mark.parametrize(("failures", "number", "left"), [(6, 5, 0), (6, errno.ENOSPC, 5)])
def test_a_store_that_stays_broken_is_told_to_all_who_wait(run, monkeypatch, failures, number, left):
    """A full disk is not waited for: one attempt."""
    monkeypatch.setattr("music_ray.jobs.ledger.time.sleep", lambda seconds: None)
    broken = failing(run, failures, number)

    async def scenario():
        ledger = writer(broken)
        ledger.begin(2)
        return await asyncio.gather(*(ledger.add(row) for row in rows(1, 2)), return_exceptions=True)

    results = asyncio.run(scenario())
    assert [type(one) for one in results] == [OSError, OSError]
    assert Failing.failures == left and ids_done(run) == []


def test_what_an_actor_wrote_before_it_died_is_found_by_the_next(run):
    asyncio.run(_write(run, 1, 2))
    open_epoch(run, SHARDS, 3)
    asyncio.run(_write(run, 5, epoch=3))
    written = WrittenRows(run, SHARDS, 3)
    found = asyncio.run(written.look_up([1, 5, 7]))
    assert found == [{"id": 5, "status": "error", "reason": "empty_reply"}]
    asyncio.run(_write(run, 7, epoch=3))
    assert [one["id"] for one in asyncio.run(written.look_up([7]))] == [7]


def test_a_row_that_no_shard_can_hold_is_told_to_all_who_wait_for_its_shard(run):
    """Else they would wait for ever."""

    async def scenario():
        ledger = writer(run, seconds=0.2)
        ledger.begin(10)
        bad = dataclasses.replace(ROW, id=2, detail="\ud83d")
        return await asyncio.wait_for(
            asyncio.gather(*(ledger.add(row) for row in (ROW, bad)), return_exceptions=True), timeout=10
        )

    assert [type(one) for one in asyncio.run(scenario())] == [UnicodeEncodeError] * 2


def test_the_epoch_file_is_no_shard(run):
    assert run.exists(*SHARDS, EPOCH_FILE)
    assert run.parquet_files(*SHARDS) == []


def test_a_machine_that_does_not_see_the_run_folder_says_so_before_it_loads_a_model(run, tmp_path):
    check_epoch(run, SHARDS)
    elsewhere = RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path / "other machine")}))
    with pytest.raises(InputError, match=r"as the driver sees it is not there on .*: set runs_dir to a URI"):
        check_epoch(elsewhere, SHARDS)
