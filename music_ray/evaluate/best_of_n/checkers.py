"""Exact checkers, which say how good a conversation is without a model: gsm8k, and functions of the user's.

A checker gets a conversation and the prompt's `answer`; it knows neither models nor who picked what.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from music_ray.errors import InputError, StageError
from music_ray.plugins import import_named, in_words
from music_ray.schema import Message

Checker = Callable[[Sequence[Message], str | None], float | None]
"""(conversation that ends on a reply, answer) → a number, larger being better; None where it can't say."""

_WRITTEN = (
    r"(?P<sign>[-\u2212]?)[$€£]?(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\.)\.\d+)"
)
_NUMBER = re.compile(rf"(?<!\w)(?<!\w\.){_WRITTEN}", re.ASCII)
"""A number with its sign; commas stand between thousands, and a unit may follow without a space."""
_MARK = "####"
"""Where a GSM8K solution gives its answer."""
_MARKED = re.compile(rf"{_MARK}[ \t*]*{_WRITTEN}[%.* \t]*$", re.ASCII | re.MULTILINE)
"""The same in a reply, where the mark may as well be a heading of Markdown: the number alone follows."""


def load_checker(name: str | None) -> Checker | None:
    """The checker that best_of_n.checker names; None where it names none.

    Raises:
        InputError: the module can't be imported, or has no such function.
    """
    if name is None:
        return None
    if name == "gsm8k":
        return check_gsm8k
    module_name, _, function_name = name.partition(":")
    module = import_named(module_name, f"best_of_n.checker: {name}")
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(
            f"best_of_n.checker: {module_name} has no function {function_name}: define "
            f"`def {function_name}(messages, answer)`, or correct the name"
        )
    return _guarded(name, function)


def check_gsm8k(messages: Sequence[Message], answer: str | None) -> float | None:
    """1 where the last number of the final reply is the answer, else 0; None without an answer.

    The answer may be a number or a whole GSM8K solution, which ends in `#### 18`.
    """
    gold = None if answer is None else number_of_answer(answer)
    if gold is None:
        return None
    return float(last_number(messages[-1]["content"]) == gold)


def number_of_answer(answer: str) -> Decimal | None:
    """The number after the last `####` of a solution, else its last number; None where there is none."""
    _, mark, tail = answer.rpartition(_MARK)
    first = _NUMBER.search(tail) if mark else None
    return _value(first) if first else last_number(answer)


def last_number(reply: str) -> Decimal | None:
    """The last number that stands alone behind a `####`, else the last number; None where there is none."""
    found = list(_MARKED.finditer(reply)) or list(_NUMBER.finditer(reply))
    return _value(found[-1]) if found else None


def _value(match: re.Match[str]) -> Decimal:
    number = Decimal(match["digits"].replace(",", ""))
    return -number if match["sign"] else number


def _guarded(name: str, function: Callable[..., object]) -> Checker:
    """A user's function, whose mistakes become messages."""

    def check(messages: Sequence[Message], answer: str | None) -> float | None:
        try:
            value = function([dict(message) for message in messages], answer)
        except Exception as error:  # a user's function may raise anything
            raise StageError(
                f"the checker {name} (best_of_n.checker) failed on a conversation that begins with "
                f"{messages[0]['content'][:60]!r}: {in_words(error)}; mend it"
            ) from error
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise StageError(
                f"the checker {name} (best_of_n.checker) returned {value!r}: it must return a finite number, "
                "or None where it can't say"
            )
        return float(value)

    return check
