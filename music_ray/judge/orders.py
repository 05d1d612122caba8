"""How a judge takes the order in which it is shown two conversations: counted from its answers in both.

Knows verdicts, not what they are on, nor what follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from music_ray.judge.verdict import Verdict


@dataclass(slots=True)
class Orders:
    """A count over questions with a verdict in each order; the others are left out.

    Of these each conversation has stood first once: whoever wins, the first place should not win more.
    """

    questions: int = 0
    agreeing: int = 0
    """Questions whose two answers say the same."""
    winners: int = 0
    """Answers that name a winner, two a question at most."""
    first_place: int = 0
    """Of these, how many name the conversation that was shown first."""

    def add(self, first: Verdict, second: Verdict) -> None:
        """Counts the answers to one question, the second with the conversations' places changed."""
        if Verdict.INVALID in (first, second):
            return
        self.questions += 1
        self.agreeing += first is second.swapped
        for one in (first, second):
            self.winners += one is not Verdict.TIE
            self.first_place += one is Verdict.A

    @property
    def first_position_wins(self) -> float | None:
        """Share of the winners that were shown first: 0.5 without position bias; None without winners."""
        return self.first_place / self.winners if self.winners else None

    @property
    def agreement_in_both_orders(self) -> float | None:
        """Share of the questions whose answers say the same in both orders; None without questions."""
        return self.agreeing / self.questions if self.questions else None
