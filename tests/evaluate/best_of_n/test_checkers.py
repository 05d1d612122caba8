"""Exact checkers: numbers in replies, and functions of the user's."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.errors import InputError, StageError
from music_ray.evaluate.best_of_n.checkers import check_gsm8k, last_number, load_checker, number_of_answer
from tests.evaluate.best_of_n.rules import talk


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes $18 every day.", "18"),
        ("9 * 2 = 18", "18"),
        ("That is 18.", "18"),
        ("That is 18.50 dollars", "18.5"),
        ("It costs $70,000.", "70000"),
        ("1,234,567.25 in all", "1234567.25"),
        ("either 3, 4", "4"),
        ("1,2", "2"),
        ("18kg of rice", "18"),
        ("25%", "25"),
        ("**18**", "18"),
        (r"\boxed{18}", "18"),
        ("the balance is -5", "-5"),
        ("the balance is \u22125", "-5"),
        ("-$5", "-5"),
        ("10-5", "5"),
        ("a half is .5", "0.5"),
        ("He eats 3.\n#### 18", "18"),
        ("#### 18\nThat is what 3 of them make.", "18"),
        ("#### **$1,018.50**", "1018.5"),
        ("#### -18.\nNot 20", "-18"),
        ("#### eighteen, not 20", "20"),
        ("#### Step 3: add them\n5 + 13 = 18. She makes $18.", "18"),  # headings of Markdown
        ("#### 3. Add them\n5 + 13 = 18", "18"),
        ("#### Final answer\nIn 2 days she makes **18** dollars.", "18"),
        ("The answer is ...18", "18"),
        ("H2O", None),
        ("eighteen", None),
        ("", None),
        ("\u0661\u0662", None),
    ],
)
def test_the_number_that_a_text_ends_on(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("9 * 2 = <<9*2=18>>18\n#### 18", "18"),
        ("#### 18 dollars (not 20)", "18"),
        ("#### eighteen, not 20", "20"),
        ("18", "18"),
        ("none", None),
    ],
)
def test_the_number_of_a_solution(answer: str, number: str | None) -> None:
    assert number_of_answer(answer) == (None if number is None else Decimal(number))


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["{}", "{:,}", "${:,}", "#### {}", "{:,}.00", "so {} it is"]),
)
def test_a_number_is_read_however_it_is_written(number: int, form: str) -> None:
    sign = "-" if number < 0 else ""
    assert last_number(f"7 and {sign}{form.format(abs(number))}") == number or (sign and form != "{}")
    assert last_number(form.format(abs(number))) == abs(number)


def test_gsm8k_looks_at_the_final_reply_alone() -> None:
    right, wrong = talk("q", "It is 20.", "Sure?", "It is 18."), talk("q", "It is 18.", "Sure?", "No, 20.")
    for answer in ("18", "18.0", "9 * 2 = <<9*2=18>>18\n#### 18"):
        assert (check_gsm8k(right, answer), check_gsm8k(wrong, answer)) == (1.0, 0.0)
    assert check_gsm8k(talk("q", "I do not know"), "18") == 0.0
    assert check_gsm8k(right, None) is None and check_gsm8k(right, "none") is None


def ends_like(messages, answer):
    """A user's checker."""
    if answer == "break":
        raise KeyError("no such thing")
    return {"none": None, "word": "yes", "nan": float("nan")}.get(answer, messages[-1]["content"] == answer)


def test_a_users_checker() -> None:
    check = load_checker(f"{__name__}:ends_like")
    assert check is not None
    assert check(talk("q", "a"), "a") == 1.0 and check(talk("q", "a"), "b") == 0.0
    assert check(talk("q", "a"), "none") is None
    with pytest.raises(StageError, match=r"ends_like \(best_of_n.checker\) failed on .*'q': KeyError"):
        check(talk("q", "a"), "break")
    with pytest.raises(StageError, match=r"returned 'yes': it must return a finite number, or None"):
        check(talk("q", "a"), "word")
    with pytest.raises(StageError, match=r"returned nan: it must return a finite number"):
        check(talk("q", "a"), "nan")


def test_a_checker_that_is_not_there() -> None:
    assert load_checker(None) is None
    with pytest.raises(InputError, match=r"best_of_n\.checker: nowhere:check can't be imported"):
        load_checker("nowhere:check")
    with pytest.raises(
        InputError, match=r"has no function nothing: define `def nothing\(messages, answer\)`"
    ):
        load_checker(f"{__name__}:nothing")
