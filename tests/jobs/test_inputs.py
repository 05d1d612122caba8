"""The files of a job's input: all rows in their order, and nothing of what was there before."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.config.load import resolve_config
from music_ray.jobs.inputs import write_inputs
from music_ray.rundir import RunDir

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
FOLDER = ("judge", "in")


def rows(number):
    return ({"id": one, "text": f"t{one}"} for one in range(number))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path)}))


@pytest.mark.parametrize(("number", "sizes"), [(0, []), (2, [2]), (3, [3]), (7, [3, 3, 1])])
def test_rows_are_cut_into_numbered_files(run: RunDir, number, sizes):
    assert write_inputs(run, FOLDER, rows(number), SCHEMA, rows_per_file=3) == number
    files = run.parquet_files(*FOLDER)
    assert [Path(one).name for one in files] == [f"part-{index:05d}.parquet" for index in range(len(sizes))]
    assert [pq.read_metadata(one).num_rows for one in files] == sizes
    assert list(run.read_rows(*FOLDER)) == list(rows(number))
    assert all(pq.read_schema(one) == SCHEMA for one in files)


def test_what_an_earlier_start_wrote_is_gone(run: RunDir):
    write_inputs(run, FOLDER, rows(9), SCHEMA, rows_per_file=3)
    write_inputs(run, FOLDER, rows(1), SCHEMA, rows_per_file=3)
    assert run.read_ids(*FOLDER).tolist() == [0]
    write_inputs(run, FOLDER, rows(0), SCHEMA, rows_per_file=3)
    assert not run.exists(*FOLDER)


def test_no_more_rows_than_one_file_holds_are_taken_at_once(run: RunDir):
    seen = []

    def counted():
        for row in rows(6):
            seen.append(len(run.parquet_files(*FOLDER)))
            yield row

    write_inputs(run, FOLDER, counted(), SCHEMA, rows_per_file=2)
    assert seen == [0, 0, 1, 1, 2, 2]
