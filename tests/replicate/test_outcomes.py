"""Outcomes of trained arms: kept by pair, and refused beside other pairs or suites than they are of."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.errors import InputError
from music_ray.miniature.preferences import write_rows
from music_ray.replicate.outcomes import Outcomes
from music_ray.replicate.scoring import Suites


def write_pairs(file: Path, *ids: str, source: str = "S1", reply: str = "a") -> Path:
    """Pairs as a suite's or an arm's file has them."""

    def row(number: int, name: str) -> dict[str, Any]:
        said = [
            [{"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": one}]
            for one in (reply, "b")
        ]
        facts = {"source": source, "seed": number, "mistake": "contrast", "error_turn": 1, "num_turns": 1}
        return {"id": name, "chosen": said[0], "rejected": said[1], **facts}

    write_rows([row(number, name) for number, name in enumerate(ids)], file)
    return file


@pytest.fixture
def suites(tmp_path: Path) -> Suites:
    files = {"S1": ("x", "y", "z"), "S2": ("v", "w")}
    return Suites.of({name: write_pairs(tmp_path / f"{name}.parquet", *ids) for name, ids in files.items()})


def outcomes_of(folder: Path, suites: Suites, reply: str = "a") -> Outcomes:
    sources = {
        arm: [write_pairs(folder / f"{arm}.parquet", "p", "q", reply=arm + reply)] for arm in ("A0", "A1")
    }
    return Outcomes.of(folder, suites, sources)


RIGHT = {"S1": np.array([True, False, True]), "S2": np.array([False, True])}


def test_an_outcome_comes_back_in_the_suites_order(tmp_path: Path, suites: Suites) -> None:
    outcomes = outcomes_of(tmp_path, suites)
    assert not outcomes.has("A1", 3)
    outcomes.write("A1", 3, RIGHT)
    assert [one.name for one in (tmp_path / "outcomes").iterdir()] == ["A1-3.parquet"]
    assert [outcomes.has("A1", 3), outcomes.has("A0", 3), outcomes.has("A1", 2)] == [True, False, False]
    assert [outcomes.complete(arms, 3) for arms in (["A1"], ["A0", "A1"])] == [True, False]
    found = outcomes.read("A1", 3)
    assert {suite: values.tolist() for suite, values in found.items()} == {
        "S1": [True, False, True], "S2": [False, True],
    }  # fmt: skip


def test_files_that_are_only_compressed_otherwise_are_the_same(tmp_path: Path, suites: Suites) -> None:
    outcomes_of(tmp_path, suites).write("A1", 0, RIGHT)
    for file in (*suites.files.values(), tmp_path / "A1.parquet"):
        pq.write_table(pq.read_table(file), file, compression="zstd", compression_level=19)
    again = Outcomes.of(tmp_path, suites, {"A1": [tmp_path / "A1.parquet"]})
    again.check()
    assert again.read("A1", 0)["S1"].tolist() == [True, False, True]


def test_outcomes_of_other_pairs_or_suites_are_refused(tmp_path: Path, suites: Suites) -> None:
    before = outcomes_of(tmp_path, suites)
    before.write("A0", 0, RIGHT)
    before.write_picks(0, pa.table({"value": [1.0]}))
    folder = tmp_path / "outcomes"
    remedy = "others than those in this folder: remove it, or put their files back"

    with pytest.raises(InputError) as raised:
        outcomes_of(tmp_path, suites, reply="c").check()
    assert str(raised.value) == f"{folder}/A0-0.parquet: the pairs of A0 are {remedy}"

    with pytest.raises(InputError) as raised:
        outcomes_of(tmp_path, suites, reply="c").read_picks(0)
    assert str(raised.value) == f"{folder}/picks-0.parquet: the pairs of A0 and the pairs of A1 are {remedy}"

    write_pairs(suites.files["S2"], "v", "w", reply="d")
    with pytest.raises(InputError) as raised:
        outcomes_of(tmp_path, suites).read("A0", 0)
    assert str(raised.value) == f"{folder}/A0-0.parquet: the suites are {remedy}"


@pytest.mark.parametrize("content", [b"", b"PAR1", "half"], ids=["empty", "foreign", "half"])
def test_a_damaged_file_is_found_before_anything_is_trained(
    tmp_path: Path, suites: Suites, content: bytes | str
) -> None:
    outcomes = outcomes_of(tmp_path, suites)
    outcomes.write("A0", 0, RIGHT)
    file = tmp_path / "outcomes" / "A0-0.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(InputError) as raised:
        outcomes.check()
    assert str(raised.value).startswith(f"{file} is damaged (")
    assert str(raised.value).endswith("): remove it, and what it was made from is made again")


def test_picks_come_back(tmp_path: Path, suites: Suites) -> None:
    outcomes = outcomes_of(tmp_path, suites)
    assert not outcomes.has_picks(0)
    outcomes.write_picks(0, pa.table({"id": [1, 2], "value": [1.0, None]}))
    assert outcomes.has_picks(0)
    assert outcomes.read_picks(0).to_pylist() == [{"id": 1, "value": 1.0}, {"id": 2, "value": None}]
