"""The texts of many pairs, each distinct one numbered and split into words once.

Views and turns refer to texts by number: equal texts have equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from music_ray.generate.audit.terms import Terms
from music_ray.generate.audit.views import Branch


class Corpus:
    """Both sides of each pair, as numbers of texts."""

    def __init__(self, sides: Sequence[tuple[Branch, Branch]]) -> None:
        """Numbers the texts in the order of the pairs."""
        numbers: dict[str, int] = {}
        self._sides = sides
        self._numbers = [
            [[numbers.setdefault(one["content"], len(numbers)) for one in side.messages] for side in both]
            for both in sides
        ]
        self.texts = list(numbers)
        self.terms = Terms(self.texts)

    def view(self, name: str) -> tuple[list[list[int]], list[list[int]]]:
        """The numbers of the texts that a view shows of each pair: of chosen, and of rejected."""
        chosen, rejected = (
            [
                [numbers[side][place] for place in both[side].places(name)]
                for both, numbers in zip(self._sides, self._numbers, strict=True)
            ]
            for side in (0, 1)
        )
        return chosen, rejected

    def by_turn(self, max_turns: int) -> dict[tuple[int, str], list[tuple[int, int]]]:
        """Numbers of the texts that stand at the same turn and role on both sides, by (turn, role).

        Turns count from 1 at the one in which the sides part.
        """
        found: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for both, numbers in zip(self._sides, self._numbers, strict=True):
            chosen, rejected = (
                _places(branch, side, max_turns) for branch, side in zip(both, numbers, strict=True)
            )
            for key in chosen.keys() & rejected.keys():
                found.setdefault(key, []).append((chosen[key], rejected[key]))
        return found


def _places(branch: Branch, numbers: Sequence[int], max_turns: int) -> dict[tuple[int, str], int]:
    """The last text of each role in each turn, by number."""
    following = iter(numbers)
    return {
        (turn, message["role"]): number
        for turn, messages in enumerate(branch.turns, start=1)
        for message, number in zip(messages, following, strict=False)
        if turn <= max_turns
    }
