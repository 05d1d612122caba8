"""Outcomes of trained arms: kept by pair, refused beside other suites, and enough to tell the result."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from music_ray.errors import InputError
from music_ray.replicate.outcomes import kept, outcome_file, picks_file, read_outcome, write_outcome
from music_ray.replicate.scoring import SuiteFacts


def facts(*ids: str) -> SuiteFacts:
    none = np.zeros(len(ids), dtype=int)
    return SuiteFacts(list(ids), none, none.astype(str), none, none)


def test_an_outcome_comes_back_in_the_suites_order(tmp_path: Path) -> None:
    suites = {"S1": facts("a", "b", "c"), "S2": facts("b", "d")}
    right = {"S1": np.array([True, False, True]), "S2": np.array([False, True])}
    file = outcome_file(tmp_path, "A1", 3)
    assert file == tmp_path / "outcomes" / "A1-3.parquet"
    write_outcome(file, suites, right)
    found = read_outcome(file, {"S2": facts("d", "b"), "S1": facts("c", "a", "b")})
    assert {suite: values.tolist() for suite, values in found.items()} == {
        "S2": [True, False], "S1": [True, True, False],
    }  # fmt: skip
    assert [one.name for one in file.parent.iterdir()] == ["A1-3.parquet"]


def test_an_outcome_of_other_suites_is_refused(tmp_path: Path) -> None:
    file = outcome_file(tmp_path, "A0", 0)
    write_outcome(file, {"S1": facts("a", "b")}, {"S1": np.array([True, False])})
    with pytest.raises(InputError) as raised:
        read_outcome(file, {"S1": facts("a", "x", "y")})
    assert str(raised.value) == (
        f"{file} lacks 2 of the suites' 3 pairs and has 1 that they don't hold: it is of other suites; "
        "remove it, or put their files back"
    )


def test_a_table_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    file = picks_file(tmp_path, 0)
    first = kept(file, lambda: pa.table({"value": [1.0, None]}))
    assert kept(file, lambda: pytest.fail("made again")).equals(first)
    assert first["value"].to_pylist() == [1.0, None]
