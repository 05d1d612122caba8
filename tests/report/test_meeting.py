"""Rows of two runs: numbers of the same things meet, and none is lost."""

from __future__ import annotations

from music_ray.report.meeting import Entry, rows_of


def entry(cell: str, *, of: str = "", folder: str = "dev") -> Entry:
    """A number of one model."""
    return Entry(("dev",), of, "dev", cell, folder, "model A")


def test_numbers_of_the_same_things_meet_whatever_their_folders() -> None:
    assert rows_of([entry("1", of="p", folder="a")], [entry("2", of="p", folder="b")]) == [("dev", "1", "2")]


def test_numbers_of_other_things_have_rows_of_their_own() -> None:
    assert rows_of([entry("1", of="p")], [entry("2", of="q")]) == [("dev", "1", "—"), ("dev", "—", "2")]
    assert rows_of([entry("1", of="p", folder="a")], [entry("2", of="q", folder="b")]) == [
        ("dev (in a)", "1", "—"),
        ("dev (in b)", "—", "2"),
    ]


def test_what_is_surely_the_same_meets_before_what_may_be() -> None:
    first = [entry("1", of="", folder="a"), entry("2", of="p", folder="b")]
    second = [entry("3", of="p", folder="a"), entry("4", of="q", folder="c")]
    assert rows_of(first, second) == [("dev (in a and c)", "1", "4"), ("dev (in b and a)", "2", "3")]


def test_the_same_things_measured_twice_meet_by_folder() -> None:
    first = [entry("1", of="p", folder="a"), entry("2", of="p", folder="b")]
    assert rows_of(first, [entry("3", of="p", folder="b")]) == [
        ("dev (in a)", "1", "—"),
        ("dev (in b)", "2", "3"),
    ]


def test_two_models_of_one_shown_name_in_one_folder_are_told_apart() -> None:
    first = [
        Entry(("x",), "p", "dev, …/base", "1", "dev", "model A"),
        Entry(("y",), "p", "dev, …/base", "2", "dev", "model B"),
        Entry(("z",), "p", "dev, own", "3", "dev", "model C"),
    ]
    assert rows_of(first, []) == [
        ("dev, …/base (in dev, model A)", "1", "—"),
        ("dev, …/base (in dev, model B)", "2", "—"),
        ("dev, own", "3", "—"),
    ]


def test_no_number_is_lost_even_where_nothing_tells_two_apart() -> None:
    assert rows_of([entry("1"), entry("2")], []) == [("dev", "1", "—"), ("dev", "2", "—")]
