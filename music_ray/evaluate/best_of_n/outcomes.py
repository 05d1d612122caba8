"""What became of each prompt in a comparison: equal picks, a winner, a tie, or nothing that can be counted.

Knows picks and verdicts; averages nothing (win_rates.py does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from music_ray.evaluate.best_of_n.questions import Comparison, Question, Row, picks_of, question
from music_ray.judge.rows import Verdicts
from music_ray.judge.verdict import Verdict, both_orders
from music_ray.schema import Message

SAME, FIRST, SECOND, TIE, INVALID, UNANSWERED = "same", "first", "second", "tie", "invalid", "unanswered"
OUTCOMES = (SAME, FIRST, SECOND, TIE, INVALID, UNANSWERED)
"""same: equal picks, a tie that nobody was asked about. invalid: no verdict that can be read. unanswered: the
engine did not answer, or the checker can't say."""
VALUES = {SAME: 0.5, FIRST: 1.0, SECOND: 0.0, TIE: 0.5}
"""What the first picker gets; the others are averaged nowhere."""
_OF_VERDICTS = {Verdict.A: FIRST, Verdict.B: SECOND, Verdict.TIE: TIE, Verdict.INVALID: INVALID}
JudgedBy = Callable[[Question, Row, Row], str]
"""The outcome of two different picks, in the order of the comparison."""


@dataclass(frozen=True)
class Outcomes:
    """A comparison's prompts, in one order for all comparisons."""

    comparison: Comparison
    names: np.ndarray
    """One of OUTCOMES each, [n]."""
    differences: np.ndarray
    """Characters of the first picker's replies less those of the second's, [n]."""

    @property
    def values(self) -> np.ndarray:
        """1 where the first wins, 0 where the second does, 0.5 for ties; not a number otherwise, [n]."""
        return np.array([VALUES.get(one, np.nan) for one in self.names.tolist()], dtype=float)

    @property
    def differing(self) -> np.ndarray:
        """Whether the picks differ, [n]."""
        return self.names != SAME


def outcomes(rows: Iterable[Row], asked: Sequence[Comparison], judged_by: JudgedBy) -> list[Outcomes]:
    """The outcomes of each comparison, in their order.

    Args:
        rows: with picks.
    """
    names: list[list[str]] = [[] for _ in asked]
    lengths: list[list[int]] = [[] for _ in asked]
    for row in rows:
        for index, comparison in enumerate(asked):
            first, second = picks_of(row, comparison)
            found = question(first["conversation"], second["conversation"])
            names[index].append(SAME if found is None else judged_by(found, first, second))
            lengths[index].append(reply_length(first["conversation"]) - reply_length(second["conversation"]))
    return [
        Outcomes(one, np.array(names[index], dtype=object), np.array(lengths[index], dtype=float))
        for index, one in enumerate(asked)
    ]


def by_verdicts(verdicts: Verdicts) -> JudgedBy:
    """A judge's verdicts decide."""

    def judged(found: Question, first: Row, second: Row) -> str:
        together = verdict_on(verdicts, found.id)
        if together is None:
            return UNANSWERED
        return _OF_VERDICTS[together.swapped if found.swapped else together]

    return judged


def by_checker(found: Question, first: Row, second: Row) -> str:
    """The checker decides: the better conversation wins."""
    left, right = first["checked"], second["checked"]
    if left is None or right is None:
        return UNANSWERED
    return TIE if left == right else FIRST if left > right else SECOND


def verdict_on(verdicts: Verdicts, one: int) -> Verdict | None:
    """What both orders say together of a question; None where an order has no answer, or it was not asked."""
    said = verdicts.of(one)
    return None if said is None or said == "error" else both_orders(*said)


def reply_length(conversation: Sequence[Message]) -> int:
    """Characters of all replies."""
    return sum(len(message["content"]) for message in conversation if message["role"] == "assistant")
