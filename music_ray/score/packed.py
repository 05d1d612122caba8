"""Conversations scored in packs: without padding, and what several begin with in common computed once.

For pairs whose sides part late that is half of the work. It is transformers' forward pass with the attention
of training's packs (music_ray/packed_attention.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from music_ray.packed_layout import PackLayout, Stretch, position_ids
from music_ray.reward_model import RewardModel

LEAST_SHARED = 8
"""Tokens in common from which on sharing is less work than one stretch of attention more."""


@dataclass
class _Row:
    """One pack that is being filled."""

    tokens: list[int] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    """Which conversations these are."""
    owner: Sequence[int] = ()
    """The conversation whose beginning others may share; it stands at owner_start."""
    owner_start: int = 0

    def add(self, index: int, conversation: Sequence[int], shared: int) -> None:
        """A conversation, of which the owner's first `shared` tokens need not be computed again."""
        start = len(self.tokens)
        self.tokens += conversation[shared:]
        prefix = (self.owner_start, self.owner_start + shared) if shared else (0, 0)
        self.stretches.append(Stretch(start, len(self.tokens), *prefix))
        self.indices.append(index)
        if not shared:
            self.owner, self.owner_start = conversation, start


def score_packed(classifier: Any, conversations: Sequence[Sequence[int]], *, pack_tokens: int) -> list[float]:
    """Rewards of tokenised conversations, in their order, as float32 values.

    Args:
        classifier: what load_reward_model returned with attention="segments".
        conversations: token ids, none of them empty.
        pack_tokens: tokens of one forward pass; a longer conversation has one of its own.
    """
    rewards = [0.0] * len(conversations)
    model = RewardModel(classifier.eval())
    with torch.inference_mode():
        for row in rows(conversations, pack_tokens):
            found = model(
                torch.tensor([row.tokens]),
                last_index=torch.tensor([one.end - 1 for one in row.stretches]),
                position_ids=position_ids(row.stretches, len(row.tokens))[None],
                pack_layout=PackLayout(tuple(row.stretches), len(row.tokens)),
            )
            for index, reward in zip(row.indices, found.tolist(), strict=True):
                rewards[index] = reward
    return rewards


def rows(conversations: Sequence[Sequence[int]], pack_tokens: int) -> Iterator[_Row]:
    """Packs of all conversations; those that begin alike stand side by side."""
    order = sorted(range(len(conversations)), key=lambda index: tuple(conversations[index]))
    row = _Row()
    for place, index in enumerate(order):
        conversation = conversations[index]
        following = conversations[order[place + 1]] if place + 1 < len(order) else ()
        shared = _worth_sharing(row.owner, conversation, following)
        if row.tokens and len(row.tokens) + len(conversation) - shared > pack_tokens:
            yield row
            row, shared = _Row(), 0
        row.add(index, conversation, shared)
    if row.tokens:
        yield row


def _worth_sharing(owner: Sequence[int], conversation: Sequence[int], following: Sequence[int]) -> int:
    """How many of the owner's tokens it takes over; none where it had better be an owner itself."""
    shared = num_common(owner, conversation)
    worth = shared >= LEAST_SHARED and num_common(conversation, following) <= 2 * shared
    return shared if worth else 0


def num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning; never all of either, for the token that is pooled is its own."""
    limit = min(len(one), len(other)) - 1
    return next((place for place in range(limit) if one[place] != other[place]), max(limit, 0))
