"""Attention inside a pack: many conversations in one row of tokens, none of which sees another.

A pack is a row of tokens without padding. It holds stretches: a stretch's tokens see the stretch's
own earlier tokens and, where it has one, the whole of a shared prefix that stands elsewhere in the
row. So the common start of a pair's sides is computed once: the chosen side is one stretch from its
first token on, the rejected side is a stretch that continues the same prefix.

Transformers hands every unknown keyword of a model's call down to the attention function
(AttentionInterface), so one function serves Gemma-2, Llama and Qwen alike: `music_segments` computes
stretch after stretch, `music_flex` is FlexAttention with a block mask, for GPUs (it has no backward
pass on CPUs). Both read the layout of the pack from the keyword `pack_layout` and refuse a call
without it: restarting position ids alone would let conversations see each other without a word.

This module knows tensors and layouts, not pairs, losses or files.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SEGMENTS, FLEX = "music_segments", "music_flex"
"""Names under which transformers finds the two functions."""


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


@dataclass
class PackLayout:
    """Who sees whom in a pack; the stretches cover it without gaps, in order."""

    stretches: Sequence[Stretch]
    num_tokens: int
    """Tokens in the row, padding at its end included."""
    _masks: dict[Any, Any] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each stretch, and of the padding at the end if there is some; they sum to num_tokens."""
        lengths = [one.end - one.start for one in self.stretches]
        padding = self.num_tokens - sum(lengths)
        return [*lengths, padding] if padding else lengths

    def additive_mask(self, stretch: Stretch, window: int | None, like: Tensor) -> Tensor | None:
        """0 where a query sees a key and -inf elsewhere, [q, k]; None where plain causality says it all.

        Keys are the prefix's tokens and then the stretch's own. Built once a pack, for all layers.
        """
        total = stretch.num_prefix + stretch.end - stretch.start
        if window is not None and window >= total:
            window = None  # positions of a stretch differ by less than its length
        if stretch.num_prefix == 0 and window is None:
            return None
        key = (stretch, window, like.dtype)
        if key not in self._masks:
            keys = torch.arange(total, device=like.device)
            queries = keys[stretch.num_prefix :, None]
            hidden = keys[None, :] > queries
            if window is not None:
                hidden |= keys[None, :] <= queries - window
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self._masks[key] = mask.masked_fill_(hidden, float("-inf"))
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


def register() -> None:
    """Makes both functions known to transformers; must come before a model is loaded with them."""
    from transformers import AttentionInterface

    AttentionInterface.register(SEGMENTS, segment_attention)
    AttentionInterface.register(FLEX, flex_attention)


def segment_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    pack_layout: PackLayout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a pack, one stretch after the other.

    Args:
        query: [1, heads, s, head_dim]; key and value: [1, kv_heads, s, head_dim].
        attention_mask: must be None: the layout says who sees whom.
        scaling: factor of the logits; 1 / sqrt(head_dim) when None.
        sliding_window: a query sees keys at most this many positions back, itself included.
        softcap: logits become softcap · tanh(logit / softcap), as in Gemma-2.
        pack_layout: the pack's layout.

    Returns:
        ([1, s, heads, head_dim], None).

    Raises:
        ValueError: no layout, or a layout of another length.
    """
    layout = _checked(pack_layout, query)
    groups = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(groups, dim=1) if groups > 1 else one for one in (key, value))
    # One split and not a slice a stretch: the gradient of a slice is as large as the whole row.
    queries, keys, values = (one.split(layout.lengths, dim=2) for one in (query, key, value))
    numbers = {one.start: number for number, one in enumerate(layout.stretches)}
    pieces = []
    for number, one in enumerate(layout.stretches):
        owner = numbers[one.prefix_start] if one.num_prefix else None
        seen, told = (_with_prefix(states, number, owner, one.num_prefix) for states in (keys, values))
        mask = layout.additive_mask(one, sliding_window, query)
        pieces.append(_attend(queries[number], seen, told, mask, scaling, softcap))
    pieces += [torch.zeros_like(padding) for padding in queries[len(pieces) :]]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def _with_prefix(states: Sequence[Tensor], number: int, owner: int | None, num_prefix: int) -> Tensor:
    """A stretch's own states, after those of the prefix with which stretch `owner` begins."""
    if owner is None:
        return states[number]
    return torch.cat([states[owner][:, :, :num_prefix], states[number]], dim=2)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Attention of one stretch; mask None stands for plain causality."""
    if softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    logits = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    if mask is None:
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu_(1)
        logits = logits.masked_fill(hidden, float("-inf"))
    else:
        logits = logits + mask
    return torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype) @ value


def flex_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    pack_layout: PackLayout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """segment_attention by FlexAttention; the arguments are the same."""
    layout = _checked(pack_layout, query)
    output = _compiled_flex()(
        query,
        key,
        value,
        score_mod=None if softcap is None else _soft_cap(softcap),
        block_mask=layout.block_mask(sliding_window, query.device),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2).contiguous(), None


@functools.cache
def _soft_cap(softcap: float) -> Any:
    """One function a value: a new one in every call would be compiled in every call."""

    def capped(logit: Tensor, *_: Any) -> Tensor:
        return softcap * torch.tanh(logit / softcap)

    return capped


@functools.cache
def _compiled_flex() -> Any:
    """FlexAttention compiled once: uncompiled it makes the whole matrix of logits."""
    from torch.nn.attention.flex_attention import flex_attention as flex

    return torch.compile(flex, dynamic=False)


def _checked(layout: PackLayout | None, query: Tensor) -> PackLayout:
    if layout is None:
        raise ValueError(
            "a pack was computed without its layout: conversations would see each other; pass pack_layout"
        )
    if query.shape[0] != 1 or query.shape[2] != layout.num_tokens:
        raise ValueError(
            f"the layout is of 1 row of {layout.num_tokens} tokens, the pack has {query.shape[0]} rows of "
            f"{query.shape[2]}"
        )
    return layout
