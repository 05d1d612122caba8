"""The shards are the ledger: what is flushed when, and what a restart sees."""

import asyncio
import dataclasses

import pytest

from music_ray.config.load import resolve_config
from music_ray.generate.ledger import ShardWriter, finished_ids
from music_ray.rundir import RunDir
from music_ray.schema import Rollout, rollout_from_row

ROW = Rollout(
    id=1, source="s", conversation=2, status="error", reason="empty_reply", detail="d",
    context=[{"role": "user", "content": "a"}], chosen=[], rejected=[], num_generated_turns=0,
    first_contrast_turn=0, contrasts=[], calls=[], engine="scripted", model="m", model_revision="",
    prompt_hash="h", run_epoch=1, seconds=0.5,
)  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path)}))


def rows(*ids):
    return [dataclasses.replace(ROW, id=one) for one in ids]


def test_flushed_rows_are_read_back_as_they_were(run):
    async def scenario():
        writer = ShardWriter(run, 1, flush_rows=10, flush_seconds=100)
        writer.begin(1)
        await writer.add(ROW)  # the last one in flight: flushed at once

    asyncio.run(scenario())
    assert [rollout_from_row(row) for row in run.read_rows("rollouts")] == [ROW]
    assert finished_ids(run).tolist() == [1]


def test_a_shard_is_written_after_flush_rows_and_not_before(run):
    async def scenario():
        writer = ShardWriter(run, 1, flush_rows=3, flush_seconds=100)
        writer.begin(100)
        for row in rows(1, 2):
            await writer.add(row)
        assert finished_ids(run).tolist() == []
        await writer.add(rows(3)[0])
        assert finished_ids(run).tolist() == [1, 2, 3]

    asyncio.run(scenario())


def test_a_task_that_waits_gets_its_rows_flushed_in_time(run):
    async def scenario():
        writer = ShardWriter(run, 1, flush_rows=1000, flush_seconds=0.2)
        writer.begin(100)
        mine = rows(7, 8)
        for row in mine:
            await writer.add(row)
        await asyncio.wait_for(writer.durable(mine), timeout=5)
        assert finished_ids(run).tolist() == [7, 8]

    asyncio.run(scenario())


def test_rows_that_come_while_a_shard_is_written_are_not_lost(run):
    async def scenario():
        writer = ShardWriter(run, 1, flush_rows=2, flush_seconds=100)
        writer.begin(9)
        await asyncio.gather(*(writer.add(row) for row in rows(*range(9))))
        await writer.durable(rows(*range(9)))

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
    assert finished_ids(run).tolist() == [1]


async def _write(run, epoch):
    writer = ShardWriter(run, epoch, flush_rows=1, flush_seconds=1)
    writer.begin(1)
    await writer.add(ROW)


def test_what_waits_is_flushed_in_time_while_no_other_rollout_ends(run):
    async def scenario():
        writer = ShardWriter(run, 1, flush_rows=1000, flush_seconds=0.2)
        writer.begin(100)
        for first in (1, 2):  # the clock starts again after each flush
            await writer.add(rows(first)[0])
            await asyncio.sleep(0.5)
            assert finished_ids(run).tolist() == list(range(1, first + 1))

    asyncio.run(scenario())
