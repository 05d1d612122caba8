"""How text and numbers are shown."""

from __future__ import annotations

import math

import pytest

from music_ray.report import show


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (31000, "31,000"), (8.25, "8.2"), (387.1, "387"), (None, "—"), (math.nan, "—")],
)
def test_count(value: float | None, expected: str) -> None:
    assert show.count(value) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("runs/demo/model", "runs/demo/model"),
        ("owner/name@v1", "owner/name@v1"),
        ("/home/ada/runs/demo/model/", "…/demo/model"),
        ("untrained:/home/ada/runs/demo", "untrained:…/demo"),
        ("untrained:s3://KEY:SECRET@bucket/runs/demo", "untrained:s3://bucket/runs/demo"),
        ("s3://KEY:SECRET@bucket/runs/demo/model?region=x", "s3://bucket/runs/demo/model"),
        ("~/model", "…/model"),
        ("/model", "…/model"),
    ],
)
def test_a_place_is_shown_without_keys_and_folders_of_the_machine(name: str, expected: str) -> None:
    assert show.place(name) == expected


def test_a_sentence_keeps_all_but_what_a_uri_hides() -> None:
    assert show.sentence("/home/ada/x: is this it? no") == "/home/ada/x: is this it? no"
    assert show.sentence("s3://K:S@bucket/x?region=y is gone") == "s3://bucket/x is gone"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (4.24, "4.2 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (3599.9, "1 h 00 min"),
        (86340, "23 h 59 min"),
        (100000, "1 d 4 h"),
        (None, "—"),
    ],
)
def test_duration(seconds: float | None, expected: str) -> None:
    assert show.duration(seconds) == expected


def test_numbers_have_real_signs() -> None:
    assert show.decimal(-0.25) == "\N{MINUS SIGN}0.250"
    assert show.signed(0.5, 1) == "+0.5"
    assert show.signed(-0.5, 1) == "\N{MINUS SIGN}0.5"
    assert show.signed(math.nan) == "not finite"
    assert show.percent(0.625) == "62.5%"


def test_moment_shortens_only_what_it_knows() -> None:
    assert show.moment("2025-11-22T20:49:31Z") == "2025-11-22 20:49 UTC"
    assert show.moment("yesterday") == "yesterday"
    assert show.moment(None) == "—"
