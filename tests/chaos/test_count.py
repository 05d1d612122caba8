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


def test_what_is_not_as_it_must_be_is_named_and_recoveries_are_by_kind() -> None:
    played = Played("generate", zeros={"lost": 0, "duplicated": 2}, unasked_ends=["1: Traceback"], planned=4)
    played.incidents = [Incident("node", 10.0, None, 14.0), Incident("node", 20.0, None, 21.0)]
    played.incidents += [Incident("node", 30.0, None, 40.0), Incident("driver", 50.0, None)]
    assert table.recoveries(played) == {
        "driver": {"lost": 1, "recovered": 0, "at_the_end": 0, "median": None, "max": None},
        "node": {"lost": 3, "recovered": 3, "at_the_end": 0, "median": 4.0, "max": 10.0},
    }
    assert table.problems(played) == [
        "generate: duplicated 2",
        "generate: the driver ended by itself, 1: Traceback",
        "generate: driver: at work again after 0 of 1 losses",
    ]


def test_the_end_of_a_scene_that_ended_well_is_the_recovery_of_what_left_nothing_to_do(capsys) -> None:
    played = Played("train", planned=2)
    played.incidents = [Incident("node", 10.0, None, 14.0), Incident("node", 20.0, None)]
    assert table.problems(played) == ["train: node: at work again after 1 of 2 losses"]
    played.end_well(26.0)
    assert table.problems(played) == []
    assert table.recoveries(played) == {
        "node": {"lost": 2, "recovered": 2, "at_the_end": 1, "median": 5.0, "max": 6.0}
    }
    table.show([played])
    cells = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "node", "2", "2", "1", "5.0", "s", "6.0", "s"] in cells


@pytest.mark.parametrize(
    ("planned", "happened", "found"),
    [
        (6, 6, []),
        (6, 4, []),
        (6, 3, ["generate: only 3 of 6 faults struck"]),
        (5, 3, ["generate: only 3 of 5 faults struck"]),
        (2, 0, ["generate: only 0 of 2 faults struck"]),
    ],
)
def test_a_schedule_of_which_more_than_a_third_found_nothing_to_hit_is_a_problem(
    planned, happened, found
) -> None:
    played = Played("generate", planned=planned, incidents=[Incident("node", 1.0, None, 2.0)] * happened)
    assert table.struck(played) == f"{happened} of {planned} faults struck"
    assert (table.facts(played)["faults_planned"], table.facts(played)["faults_struck"]) == (
        planned,
        happened,
    )
    assert table.problems(played) == found
