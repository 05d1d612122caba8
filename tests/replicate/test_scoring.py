"""Which pairs of the suites a model gets right, through the evaluation that users have."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.config.load import resolve_config
from music_ray.evaluate.sides import Tools
from music_ray.replicate.scoring import Suites, score_suites
from music_ray.rundir import RunDir
from music_ray.schema import MESSAGES

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.string(),
        "seed": pa.int64(),
        "mistake": pa.string(),
        "error_turn": pa.int64(),
        "num_turns": pa.int64(),
        "chosen": MESSAGES,
        "rejected": MESSAGES,
    }
)


def conversation(reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "Sort 3 1."}, {"role": "assistant", "content": reply}]


def suite(file: Path, *replies: tuple[str, str]) -> Path:
    rows = [
        {
            "id": f"{file.stem}-{number}",
            "source": "contrast",
            "seed": number,
            "mistake": "off_by_one",
            "error_turn": 1,
            "num_turns": 1,
            "chosen": conversation(chosen),
            "rejected": conversation(rejected),
        }
        for number, (chosen, rejected) in enumerate(replies)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)
    return file


def score(model: str, data: str, out: str, words: Sequence[str]) -> RunDir:
    """Scores a side by its last reply, from the model's table."""
    table = json.loads((Path(model) / "scores.json").read_text())
    run = RunDir(resolve_config({"name": Path(out).name, "runs_dir": str(Path(out).parent)}))
    rows = [
        {
            "id": row["id"],
            "row": number,
            "column": side,
            "score": table[row[side][-1]["content"]],
            "num_tokens": 4,
            "reason": "",
        }
        for number, row in enumerate(pq.read_table(data).to_pylist())
        for side in ("chosen", "rejected")
    ]
    run.write_table(pa.Table.from_pylist(rows), "scores", "part-00000-of-00001.parquet")
    return run


def digest_of_table(folder: str) -> Any:
    return SimpleNamespace(digest=hashlib.sha256((Path(folder) / "scores.json").read_bytes()).hexdigest())


@pytest.fixture
def suites(tmp_path: Path) -> Suites:
    first = suite(tmp_path / "S1.parquet", ("1 3", "3 1"), ("1 2", "2 1"))
    return Suites.of({"S1": first, "S7": suite(tmp_path / "S7.parquet", ("1 3", "1 2"))})


def test_pairs_are_right_where_the_chosen_side_has_more_in_the_order_of_the_files(
    suites: Suites, tmp_path: Path
) -> None:
    tools = Tools(digest_of_table, lambda *_: None, score=score, hub_rows=lambda *_: iter(()))
    model = tmp_path / "model"
    model.mkdir()
    (model / "scores.json").write_text(json.dumps({"1 3": 2.0, "3 1": 1.0, "1 2": 0.5, "2 1": 0.7}))
    right = score_suites(model, suites, tmp_path / "scores", tools, [])
    assert {name: found.tolist() for name, found in right.items()} == {"S1": [True, False], "S7": [True]}

    # Another model in the same place has its own scores, beside the former's; a tie is wrong.
    (model / "scores.json").write_text(json.dumps({"1 3": 1.0, "3 1": 2.0, "1 2": 1.0, "2 1": 0.7}))
    right = score_suites(model, suites, tmp_path / "scores", tools, [])
    assert {name: found.tolist() for name, found in right.items()} == {"S1": [False, True], "S7": [False]}
    assert len(list((tmp_path / "scores" / "all-suites").glob("scores-*.parquet"))) == 2
