"""The layout of a pack: which tokens of its row are of which conversation, and who sees whom.

A pack is a row of tokens without padding. It holds stretches: a stretch's tokens see the stretch's
own earlier tokens and, where it has one, the whole of a shared prefix that stands elsewhere in the
row. So the common start of a pair's sides is computed once: the chosen side is one stretch from its
first token on, the rejected side is a stretch that continues the same prefix.

Two forms of it: groups of stretches of like size, each computed as one batch (for CPUs), and the block
mask of the whole row (FlexAttention, for GPUs). The module knows token places, not pairs or states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_CLASS = 8
"""Stretches are grouped by their numbers of queries and keys, rounded up to powers of two from here on."""
MOST_TOGETHER = 256
"""Keys above which a stretch is computed alone: it is work enough, and padding it would cost more."""


@dataclass(frozen=True)
class Stretch:
    """Tokens [start, end) of a pack, which continue its tokens [prefix_start, prefix_end)."""

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0

    @property
    def num_prefix(self) -> int:
        """Length of the shared prefix; 0 without one."""
        return self.prefix_end - self.prefix_start

    @property
    def num_queries(self) -> int:
        """Tokens of its own."""
        return self.end - self.start

    @property
    def num_keys(self) -> int:
        """Tokens that its last token sees."""
        return self.num_prefix + self.num_queries


@dataclass(frozen=True)
class Group:
    """Stretches of like size as one batch: n stretches, padded at their ends to q queries and k keys."""

    stretches: tuple[Stretch, ...]
    num_queries: int
    num_keys: int

    @classmethod
    def of(cls, stretches: Sequence[Stretch]) -> Group:
        """The group of these stretches."""
        queries = max(one.num_queries for one in stretches)
        return cls(tuple(stretches), queries, max(one.num_keys for one in stretches))

    @property
    def query_shape(self) -> tuple[int, int]:
        """n and q."""
        return len(self.stretches), self.num_queries

    @property
    def key_shape(self) -> tuple[int, int]:
        """n and k."""
        return len(self.stretches), self.num_keys

    def query_rows(self) -> np.ndarray:
        """Places of the queries in the pack's row, [n, q]; padding repeats a stretch's last one."""
        start, end = (self._column(name) for name in ("start", "end"))
        return np.minimum(start + np.arange(self.num_queries), end - 1)

    def key_rows(self) -> np.ndarray:
        """Places of the keys, the prefix's and then the stretch's own, [n, k]; padded alike."""
        keys = np.arange(self.num_keys)
        prefix, start, end = (self._column(name) for name in ("num_prefix", "start", "end"))
        own = np.minimum(start + keys - prefix, end - 1)
        return np.where(keys < prefix, self._column("prefix_start") + keys, own)

    def additive_mask(self, window: int | None) -> Tensor | None:
        """0 where a query sees a key, else -inf, [n, q, k]; None where plain causality says it all."""
        if window is not None and window >= self.num_keys:
            window = None  # positions of a stretch differ by less than its length
        prefix = self._column("num_prefix")
        if window is None and not prefix.any():
            return None
        last = self._column("num_keys") - 1
        # Padding stands where the last query does: it sees what that one sees, so no row is empty (NaN).
        position = np.minimum(prefix + np.arange(self.num_queries), last)[:, :, None]
        keys = np.arange(self.num_keys)
        hidden = keys > position
        if window is not None:
            hidden |= keys <= position - window
        return torch.zeros(hidden.shape).masked_fill_(torch.from_numpy(hidden), float("-inf"))

    def _column(self, name: str) -> np.ndarray:
        """A number of every stretch, [n, 1]."""
        return np.array([getattr(one, name) for one in self.stretches])[:, None]


@dataclass(frozen=True)
class GroupRows:
    """Where the rows of all groups, one after the other, come from and go to."""

    queries: Tensor
    """Places in the pack's row, [sum of n · q]."""
    keys: Tensor
    """The same of keys and values, [sum of n · k]."""
    outputs: Tensor
    """For each token of the pack, where it stands among the queries, [s]; behind the last one for padding."""


@dataclass
class PackLayout:
    """Who sees whom in a pack; the stretches cover it without gaps, in order."""

    stretches: Sequence[Stretch]
    num_tokens: int
    """Tokens in the row, padding at its end included."""
    _masks: dict[Any, Any] = field(default_factory=dict)
    _rows: dict[Any, GroupRows] = field(default_factory=dict)

    @cached_property
    def groups(self) -> list[Group]:
        """All stretches, those of like size together."""
        classes: dict[Any, list[Stretch]] = {}
        for number, one in enumerate(self.stretches):
            # Without a prefix no mask is needed, so those stay among themselves.
            kind = (one.num_prefix > 0, _size_class(one.num_queries), _size_class(one.num_keys))
            classes.setdefault(kind if one.num_keys <= MOST_TOGETHER else number, []).append(one)
        return [Group.of(stretches) for stretches in classes.values()]

    def rows(self, device: Any) -> GroupRows:
        """The places of the groups' rows, on a device; computed once a pack, for all layers."""
        if device not in self._rows:
            self._rows[device] = GroupRows(*(one.to(device) for one in self._places()))
        return self._rows[device]

    def _places(self) -> Iterator[Tensor]:
        queries = _joined(group.query_rows() for group in self.groups)
        keys = _joined(group.key_rows() for group in self.groups)
        outputs = np.full(self.num_tokens, len(queries))
        # Backwards: of a place that padding repeats the first copy counts, which is the query itself.
        outputs[queries[::-1]] = np.arange(len(queries))[::-1]
        yield from map(torch.from_numpy, (queries, keys, outputs))

    def group_mask(self, number: int, window: int | None, like: Tensor) -> Tensor | None:
        """Group.additive_mask of one of the groups, of a tensor's kind; built once a pack, for all layers."""
        key = (number, window, like.dtype, like.device)
        if key not in self._masks:
            mask = self.groups[number].additive_mask(window)
            self._masks[key] = None if mask is None else mask.to(like)
        return self._masks[key]

    def block_mask(self, window: int | None, device: Any) -> Any:
        """FlexAttention's mask of the whole pack; built once a pack and window, for all layers."""
        from torch.nn.attention.flex_attention import create_block_mask

        if window not in self._masks:
            pair, side, position = (one.to(device) for one in self._owners())

            def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                same = (pair[query] == pair[key]) & ((side[key] == 0) | (side[key] == side[query]))
                seen = same & (position[key] <= position[query])
                return seen if window is None else seen & (position[key] > position[query] - window)

            self._masks[window] = create_block_mask(
                sees, None, None, self.num_tokens, self.num_tokens, device=device
            )
        return self._masks[window]

    def _owners(self) -> tuple[Tensor, Tensor, Tensor]:
        """For every token its pair, its side (0: the shared prefix) and its position, [s] each.

        Padding belongs to a pair of its own, so that no row of the mask is empty (which gives NaN).
        """
        pair = torch.full((self.num_tokens,), -1, dtype=torch.int32)
        side = torch.zeros(self.num_tokens, dtype=torch.int32)
        for number, one in enumerate(self.stretches):
            if one.num_prefix:
                pair[one.start : one.end] = pair[one.prefix_start]
                side[one.prefix_end : one.start] = 1  # what the first side adds to the prefix
                side[one.start : one.end] = 2
            else:
                pair[one.start : one.end] = number
        return pair, side, position_ids(self.stretches, self.num_tokens)


def position_ids(stretches: Sequence[Stretch], num_tokens: int) -> Tensor:
    """Each token's place in its conversation, [s]; padding at the end counts from 0."""
    positions = torch.arange(num_tokens)
    for one in stretches:
        positions[one.start : one.end] -= one.start - one.num_prefix
    if stretches:
        positions[stretches[-1].end :] -= stretches[-1].end
    return positions


def _size_class(number: int) -> int:
    """The power of two that holds so many."""
    return 1 << (max(LEAST_CLASS, number) - 1).bit_length()


def _joined(rows: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([one.reshape(-1) for one in rows])
