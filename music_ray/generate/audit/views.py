"""What the probes are shown of a pair: the part in which its sides differ, from four points of view.

    whole         everything from the first message in which the sides differ
    user          the user messages of that part
    last_reply    the last reply alone
    first_reply   the first reply of that part alone: the first contrasted one

What both sides share can't tell them apart, so it is not looked at. This module knows a pair's messages;
it does not know models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from music_ray.generate.audit.features import (
    FEATURES,
    compare_by,
    count_message,
    ngrams,
    num_words,
    sum_counts,
)
from music_ray.schema import Message, PreferencePair, split_turns

VIEWS = ("whole", "user", "last_reply", "first_reply")
MAX_TURNS = 8
"""Turns after the split whose lengths are features of their own."""
ROLES = ("replies", "user")
"""Both halves of `whole`; their features are told apart."""


@dataclass
class Branch:
    """One side of a pair from the first message in which the sides differ."""

    turns: list[list[Message]]
    """The first one may begin with a reply: its user message is then the same on both sides."""

    @cached_property
    def messages(self) -> list[Message]:
        """All messages in order."""
        return [message for turn in self.turns for message in turn]

    @cached_property
    def counts(self) -> list[np.ndarray]:
        """The surface counts of each message."""
        return [count_message(message["content"]) for message in self.messages]

    def places(self, view: str) -> list[int]:
        """Which messages a view shows, as places in `messages`."""
        if view == "whole":
            return list(range(len(self.messages)))
        role = "user" if view == "user" else "assistant"
        found = [place for place, message in enumerate(self.messages) if message["role"] == role]
        return {"last_reply": found[-1:], "first_reply": found[:1]}.get(view, found)

    def counts_of(self, view: str) -> list[np.ndarray]:
        """The counts of the messages that a view shows."""
        return [self.counts[place] for place in self.places(view)]

    def texts_of(self, view: str) -> list[str]:
        """The messages that a view shows."""
        return [self.messages[place]["content"] for place in self.places(view)]


def branches(pair: PreferencePair) -> tuple[Branch, Branch]:
    """Chosen and rejected without the messages that both begin with."""
    shared = 0
    for left, right in zip(pair.chosen, pair.rejected, strict=False):
        if left != right:
            break
        shared += 1
    return Branch(split_turns(pair.chosen[shared:])), Branch(split_turns(pair.rejected[shared:]))


def surface(branch: Branch, view: str) -> np.ndarray:
    """The surface features of a view, in the order of feature_names(view)."""
    if view != "whole":
        return compare_by(sum_counts(branch.counts_of(view)))
    roles = [compare_by(sum_counts(branch.counts_of(role))) for role in ROLES]
    return np.concatenate([*roles, _by_turn(branch)])


def feature_names(view: str) -> tuple[str, ...]:
    """Names of a view's surface features, as a reader meets them."""
    if view == "whole":
        return (*(f"{role}: {name}" for role in ROLES for name in FEATURES), *_BY_TURN)
    label = "user" if view == "user" else "reply"
    return tuple(f"{label}: {name}" for name in FEATURES)


# -- how a conversation goes on --------------------------------------------------------------------

_SHAPES: dict[str, Callable[[Sequence[float]], float]] = {
    "growth in words from turn to turn": lambda logs: (logs[-1] - logs[0]) / (len(logs) - 1),
    "change in words from turn to turn": lambda logs: (
        sum(abs(after - before) for before, after in pairwise(logs)) / (len(logs) - 1)
    ),
}
_BY_TURN = (
    *(f"replies: words in turn {turn}" for turn in range(1, MAX_TURNS + 1)),
    *(f"user: words in turn {turn}" for turn in range(1, MAX_TURNS + 1)),
    *(f"{label}: {name}" for label in ROLES for name in _SHAPES),
    *(f"{label}: share of 3-grams said before" for label in ROLES),
)


def _by_turn(branch: Branch) -> np.ndarray:
    lengths = {"assistant": np.zeros(MAX_TURNS), "user": np.zeros(MAX_TURNS)}
    words = map(num_words, branch.counts)
    for index, turn in enumerate(branch.turns):
        for message in turn:
            number = next(words)
            if index < MAX_TURNS:
                lengths[message["role"]][index] += math.log1p(number)
    shapes = []
    for role in ROLES:
        logs = [math.log1p(num_words(one)) for one in branch.counts_of(role)]
        shapes += [shape(logs) if len(logs) > 1 else 0.0 for shape in _SHAPES.values()]
    said_before = [_said_before(branch.texts_of(role)) for role in ROLES]
    return np.concatenate([lengths["assistant"], lengths["user"], shapes, said_before])


def _said_before(texts: list[str]) -> float:
    """Share of the 3-grams of later messages that an earlier message of the same role has."""
    if len(texts) < 2:
        return 0.0
    earlier = ngrams(texts[0])
    total = repeated = 0
    for text in texts[1:]:
        here = ngrams(text)
        total += len(here)
        repeated += len(here & earlier)
        earlier |= here
    return repeated / total if total else 0.0
