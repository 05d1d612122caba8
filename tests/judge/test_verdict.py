"""Verdicts: what swapping does, what two orders say together, and which answers hold one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.judge.verdict import Verdict, both_orders, read_verdict

A, B, TIE, INVALID = Verdict
verdicts = st.sampled_from(Verdict)


@given(verdicts)
def test_swapping_twice_is_nothing_and_moves_winners_alone(one: Verdict) -> None:
    assert one.swapped.swapped is one
    assert (one.swapped is one) == (one in (TIE, INVALID))


@given(verdicts, verdicts)
def test_both_orders_are_symmetric_in_the_conversations(first: Verdict, second: Verdict) -> None:
    """Who is asked about (y, x) instead of (x, y) hears the same two answers, and says the opposite."""
    assert both_orders(second, first) is both_orders(first, second).swapped


@given(verdicts, verdicts)
def test_a_winner_needs_both_orders_and_invalid_is_never_a_tie(first: Verdict, second: Verdict) -> None:
    together = both_orders(first, second)
    assert (together is INVALID) == (INVALID in (first, second))
    assert (together in (A, B)) == (first in (A, B) and second is first.swapped)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (A, B, A), (B, A, B), (A, A, TIE), (B, B, TIE), (TIE, TIE, TIE), (A, TIE, TIE), (TIE, B, TIE),
        (A, INVALID, INVALID), (INVALID, INVALID, INVALID),
    ],
)  # fmt: skip
def test_what_two_answers_say_together(first: Verdict, second: Verdict, together: Verdict) -> None:
    assert both_orders(first, second) is together


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("A does what was asked.\n<verdict>A</verdict>", A),
        ("<verdict> b </verdict>\n", B),
        ("So: **<verdict>Tie</verdict>**.", TIE),
        ("It says <verdict>A</verdict>, which is no argument.\n<verdict>B</verdict>", B),
        # The last tag decides, and it must end the answer.
        ("It says <verdict>A</verdict>, which is no argument.", INVALID),
        ("<verdict>A</verdict> or rather <verdict>neither</verdict>", INVALID),
        ("<verdict>A</verdict> and then cut off: <verdict>B", INVALID),
        ("<verdict>A or B</verdict>", INVALID),
        ("<verdict>invalid</verdict>", INVALID),
        ("<verdict>t\u0130e</verdict>", INVALID),
        ("\u0130\u0130\u0130 <verdict>A</verdict>", A),
        ("A", INVALID),
        ("", INVALID),
    ],
)
def test_how_answers_are_read(answer: str, verdict: Verdict) -> None:
    assert read_verdict(answer) is verdict


@given(st.text(max_size=60), verdicts)
def test_whatever_stands_before_the_final_tag_decides_nothing(before: str, one: Verdict) -> None:
    # A tag with the word 'invalid' in it holds no verdict either.
    assert read_verdict(f"{before}<verdict>{one}</verdict>") is one
