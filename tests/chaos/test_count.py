"""The counts at the end of a scene can fail: what was lost, doubled, skipped or repeated is found."""

from pathlib import Path

import pytest

from tests.chaos import table
from tests.chaos.scene import Incident, Played
from tests.chaos.slow_contrast import read_calls
from tests.chaos.training import count_pairs


@pytest.mark.parametrize(
    ("order", "skipped", "repeated"),
    [
        ("abcd cabd ab", 0, 0),
        ("abcd cabd aa", 0, 1),
        ("abca cabd ab", 1, 1),
        ("abcd cabd a", 1, 0),
        ("abcd cabd abc", 0, 1),
    ],
)
def test_pairs_that_were_skipped_or_repeated_are_counted(order, skipped, repeated) -> None:
    ids = list(order.replace(" ", ""))
    assert count_pairs(ids, pairs=4, expected=10) == {"skipped": skipped, "repeated": repeated}


def test_a_line_that_is_not_complete_waits_for_the_next_look(tmp_path: Path) -> None:
    record = tmp_path / "calls.txt"
    assert list(read_calls(tmp_path)) == []
    record.write_text("1.500 7 Please tell me about topic 1.\n2.000 8 Please")
    [(offset, call)] = read_calls(tmp_path)
    assert (call.at, call.pid, call.opening) == (1.5, 7, "Please tell me about topic 1.")
    with record.open("a") as handle:
        handle.write(" tell me.\n")
    assert [one.pid for _, one in read_calls(tmp_path, offset)] == [8]


def test_what_is_not_zero_is_named_and_recoveries_are_by_kind() -> None:
    played = Played("generate", zeros={"lost": 0, "duplicated": 2}, unasked_ends=["1: Traceback"])
    assert table.problems(played) == [
        "generate: duplicated 2",
        "generate: the driver ended by itself, 1: Traceback",
    ]
    played.incidents = [Incident("node", 10.0, None, 14.0), Incident("node", 20.0, None, 21.0)]
    played.incidents += [Incident("node", 30.0, None, 40.0), Incident("driver", 50.0, None)]
    assert table.recoveries(played) == {
        "driver": {"lost": 1, "recovered": 0, "median": None, "max": None},
        "node": {"lost": 3, "recovered": 3, "median": 4.0, "max": 10.0},
    }
