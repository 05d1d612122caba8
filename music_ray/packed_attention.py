"""Attention inside a pack: many conversations in one row of tokens, none of which sees another.

Transformers hands every unknown keyword of a model's call down to the attention function
(AttentionInterface), so one function serves Gemma-2, Llama and Qwen alike: `music_segments` computes
stretches of like size as one batch, `music_flex` is FlexAttention with a block mask, for GPUs (it has no
backward pass on CPUs). Both read the layout of the pack (music_ray.packed_layout) from the keyword
`pack_layout` and refuse a call without it: restarting position ids alone would let conversations see each
other without a word.

This module knows tensors and layouts, not pairs, losses or files.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from music_ray.packed_layout import PackLayout

SEGMENTS, FLEX = "music_segments", "music_flex"
"""Names under which transformers finds the two functions."""


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
    """Attention of a pack, one group of stretches of like size after the other.

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
    rows = layout.rows(query.device)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # One gathering of rows and not one a group: the gradient of each is as large as the whole row.
    queries = _batches(query, rows.queries, [one.query_shape for one in layout.groups])
    keys = _batches(key, rows.keys, [one.key_shape for one in layout.groups])
    values = _batches(value, rows.keys, [one.key_shape for one in layout.groups])
    pieces = []
    for number in range(len(layout.groups)):
        mask = layout.group_mask(number, sliding_window, query)
        attended = _attend(queries[number], keys[number], values[number], mask, scale, softcap)
        pieces.append(attended.flatten(0, 1))
    pieces.append(torch.zeros_like(pieces[0][:1]))  # what padding of the row gets
    return torch.cat(pieces)[rows.outputs][None], None


def _batches(states: Tensor, rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The groups' rows of [1, heads, s, head_dim], [n, q or k, heads, head_dim] each."""
    parts = states[0].transpose(0, 1)[rows].split([num * length for num, length in shapes])
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """Attention of a batch.

    Args:
        query: [n, q, heads, head_dim]; key and value: [n, k, kv_heads, head_dim].
        mask: what is added to the logits, [n, q, k]; None stands for plain causality.

    Returns:
        [n, q, heads, head_dim].
    """
    groups = query.shape[2] // key.shape[2]
    if softcap is None:
        attended = scaled_dot_product_attention(
            query.transpose(1, 2),
            key.repeat_interleave(groups, dim=2).transpose(1, 2),
            value.repeat_interleave(groups, dim=2).transpose(1, 2),
            attn_mask=None if mask is None else mask[:, None],
            is_causal=mask is None,
            scale=scale,
        )
        return attended.transpose(1, 2)
    if mask is None:
        lengths = (query.shape[1], key.shape[1])
        mask = torch.full(lengths, float("-inf"), dtype=query.dtype, device=query.device).triu_(1)[None]
    # The heads that share keys are one long row of queries: a dimension of their own would copy the keys.
    grouped = (query * (scale / softcap)).unflatten(2, (-1, groups)).permute(0, 2, 3, 1, 4)
    logits = torch.matmul(grouped.flatten(2, 3), key.permute(0, 2, 3, 1)).tanh() * softcap
    by_head = logits.view(*grouped.shape[:4], -1)  # [n, kv_heads, heads a kv_head, q, k]
    by_head += mask[:, None, None]
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
    attended = torch.matmul(weights, value.transpose(1, 2)).view(grouped.shape)
    return attended.permute(0, 3, 1, 2, 4).flatten(2, 3)


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
