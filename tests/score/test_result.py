"""The files that a user reads: the input's order, one row a conversation, nothing lost."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import StageError
from music_ray.rundir import RunDir
from music_ray.schema import to_table
from music_ray.score.result import write_result
from music_ray.score.rows import CONVERSATION_SCHEMA, ScoreRow, shard_schema

FACTS = {"music_ray.model": "abc", "music_ray.model_name": "runs/x/model"}


def make(tmp_path, number: int = 30) -> RunDir:
    """Pairs in two files, shards in a random order, every seventh conversation without a score."""
    run = RunDir(resolve_config({"name": "out", "runs_dir": str(tmp_path)}))
    entries = [
        {"id": one, "key": f"k{one // 2}", "column": ("chosen", "rejected")[one % 2], "messages": []}
        | {"reason": "", "detail": ""}
        for one in range(number)
    ]
    for part, start in enumerate((0, 20)):
        table = pa.Table.from_pylist(entries[start : start + 20], schema=CONVERSATION_SCHEMA)
        run.write_table(table, "in", f"part-{part:05d}.parquet")
    rows = [
        ScoreRow(one, "error", "over_length", f"row {one}", None, 999)
        if one % 7 == 0
        else ScoreRow(one, "ok", "", "", one / 8, 10 + one)
        for one in range(number)
    ]
    random.Random(1).shuffle(rows)
    for part, start in enumerate((0, 4, 17)):
        stop = (4, 17, number)[part]
        table = to_table(rows[start:stop], shard_schema(FACTS))
        run.write_table(table, "shards", f"e0001-{part}.parquet")
    return run


def test_rows_come_in_the_inputs_order_with_the_models_identity(tmp_path) -> None:
    run = make(tmp_path)
    counts = write_result(run, FACTS)
    scored = [one for one in range(30) if one % 7]
    assert counts == {
        "conversations": 30,
        "scored": 25,
        "errors": 5,
        "error_reasons": {"over_length": 5},
        "tokens": sum(10 + one for one in scored),
    }
    paths = run.parquet_files("scores")
    assert [path.rpartition("/")[2] for path in paths] == [
        "part-00000-of-00002.parquet",
        "part-00001-of-00002.parquet",
    ]
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert [(row["row"], row["column"]) for row in rows] == [
        (number, column) for number in range(15) for column in ("chosen", "rejected")
    ]
    assert [row["score"] for row in rows] == [one / 8 if one % 7 else None for one in range(30)]
    assert rows[7] == {
        "id": "k3",
        "row": 3,
        "column": "rejected",
        "score": None,
        "num_tokens": 999,
        "status": "error",
        "reason": "over_length",
        "detail": "row 7",
    }
    metadata = pq.read_schema(paths[1]).metadata
    assert (metadata[b"music_ray.model"], metadata[b"music_ray.schema"]) == (b"abc", b"score")
    write_result(run, FACTS)  # again, over what is there
    assert [row for path in paths for row in pq.read_table(path).to_pylist()] == rows


def test_a_score_that_is_missing_is_no_silent_gap(tmp_path) -> None:
    run = make(tmp_path)
    run.fs.delete_file(run.path("shards", "e0001-0.parquet"))
    with pytest.raises(
        StageError, match=r"^4 of 30 conversations have no row in .*/shards: the same command"
    ):
        write_result(run, FACTS)
    assert not run.exists("scores")
