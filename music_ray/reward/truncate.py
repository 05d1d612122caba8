"""Fitting a pair into the token limit by whole turns that both sides share.

A reward model must not learn from where a side was cut: both sides lose the same turns from the
start, a user message and its reply together, and never a turn in which they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from music_ray.schema import Message, split_turns


def num_shared_turns(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many turns from the start are equal in both sides, the last turn of a side never counted."""
    left, right = split_turns(chosen), split_turns(rejected)
    shared = 0
    while shared < min(len(left), len(right)) - 1 and left[shared] == right[shared]:
        shared += 1
    return shared


def cut_to_fit(
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    fits: Callable[[list[Message], list[Message]], bool],
) -> tuple[list[Message], list[Message]] | None:
    """Both sides without the fewest shared turns that make them fit; None when no cut does.

    Args:
        fits: whether a pair of sides is within the limit.
    """
    left, right = split_turns(chosen), split_turns(rejected)
    for dropped in range(num_shared_turns(chosen, rejected) + 1):
        sides = _join(left[dropped:]), _join(right[dropped:])
        if fits(*sides):
            return sides
    return None


def _join(turns: Sequence[Sequence[Message]]) -> list[Message]:
    return [message for turn in turns for message in turn]
