"""Which row of an id counts, and what compaction does to that: nothing."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.config.load import resolve_config
from music_ray.jobs.compaction import compact
from music_ray.jobs.shards import COMPACTS, is_among, live_shards, read_index, read_rows
from music_ray.rundir import RunDir
from music_ray.schema import ROLLOUT_SCHEMA, to_table
from tests.jobs.test_ledger import ROW

SHARDS = ("rollouts", "shards")


def new_run(folder):
    return RunDir(resolve_config({"name": "t", "runs_dir": str(folder)}))


@pytest.fixture
def run(tmp_path):
    return new_run(tmp_path)


def write(run, name, *rows):
    """Rows as (id, status, detail)."""
    made = [dataclasses.replace(ROW, id=one, status=status, detail=detail) for one, status, detail in rows]
    run.write_table(to_table(made, ROLLOUT_SCHEMA), *SHARDS, f"{name}.parquet")


def counted(run):
    return {row["id"]: row["detail"] for row in read_rows(run, read_index(run, SHARDS), ["id", "detail"])}


def test_an_ok_row_beats_errors_the_first_ok_row_counts_and_the_last_error(run):
    write(run, "e0001-a", (1, "error", "1a"), (2, "ok", "2a"), (3, "error", "3a"), (9, "ok", "9a"))
    write(run, "e0002-b", (1, "ok", "1b"), (2, "ok", "2b"), (3, "error", "3b"))
    write(run, "e0003-c", (1, "error", "1c"), (2, "error", "2c"))
    assert counted(run) == {1: "1b", 2: "2a", 3: "3b", 9: "9a"}
    index = read_index(run, SHARDS)
    assert index.duplicate_rows == 5
    assert index.ids_done().tolist() == [1, 2, 3, 9]
    assert index.ids_done(errors_too=False).tolist() == [1, 2, 9]
    assert index.only(np.array([2, 3])).ids.tolist() == [2, 3]


def test_an_empty_folder_is_an_empty_index(run):
    index = read_index(run, SHARDS)
    assert (index.ids.tolist(), index.duplicate_rows, list(read_rows(run, index))) == ([], 0, [])


@given(st.lists(st.integers(0, 2**63 - 1)), st.sets(st.integers(0, 2**63 - 1)))
def test_membership_is_that_of_a_set(values, ids):
    found = is_among(np.array(values, dtype=np.int64), np.array(sorted(ids), dtype=np.int64))
    assert found.tolist() == [value in ids for value in values]


ROWS = st.tuples(st.integers(1, 12), st.sampled_from(["ok", "error"]))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=8), st.integers(1, 9))
def test_compaction_changes_no_row_that_counts(tmp_path_factory, shards, target):
    run = new_run(tmp_path_factory.mktemp("compaction"))
    for number, rows in enumerate(shards):
        named = [(one, status, f"{number}.{place}") for place, (one, status) in enumerate(rows)]
        write(run, f"e{number:04d}-x", *named)
    before = counted(run)
    left = compact(run, SHARDS, min_shards=1, target_bytes=target * 10_000)
    assert counted(run) == before
    assert left == len(run.parquet_files(*SHARDS)) <= len(shards)


def test_few_shards_are_left_alone_and_many_become_one(run):
    for number in range(5):
        write(run, f"e0001-{number}", (number, "ok", ""))
    assert compact(run, SHARDS, min_shards=6) == 5
    assert compact(run, SHARDS, min_shards=5) == 1
    assert list(counted(run)) == [0, 1, 2, 3, 4]
    assert read_index(run, SHARDS).duplicate_rows == 0


def test_a_crash_between_writing_a_compacted_shard_and_removing_the_small_ones(run):
    for number in range(4):
        write(run, f"e0001-{number}", (number, "ok", ""))
    before = run.parquet_files(*SHARDS)
    kept = {path: Path(path).read_bytes() for path in before}
    compact(run, SHARDS, min_shards=1)
    for path, content in kept.items():  # as if nothing had been removed
        Path(path).write_bytes(content)
    index = read_index(run, SHARDS)
    assert (index.ids.tolist(), index.duplicate_rows) == ([0, 1, 2, 3], 0)
    assert compact(run, SHARDS) == 1 and len(run.parquet_files(*SHARDS)) == 1


def test_shards_of_another_version_are_not_joined_with_these(run):
    write(run, "e0001-a", (1, "ok", ""))
    write(run, "e0001-b", (2, "ok", ""))
    with run.open_parquet(run.parquet_files(*SHARDS)[0]) as file:
        old = file.read().drop_columns(["writers"])
    for number, one in enumerate((3, 4)):
        old = old.set_column(0, "id", pa.array([one], type=pa.int64()))
        run.write_table(old, *SHARDS, f"e0000-{number}.parquet")
    assert compact(run, SHARDS, min_shards=1) == 2
    assert sorted(counted(run)) == [1, 2, 3, 4]
    for path in live_shards(run, SHARDS):
        with run.open_parquet(path) as file:
            assert len(file.schema_arrow.metadata[COMPACTS].split()) == 2
