"""A pack's rewards and gradients are those of separate padded forwards, for every family of models."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from music_ray.packed_attention import FLEX, SEGMENTS, register, segment_attention
from music_ray.packed_layout import PackLayout, Stretch
from music_ray.reward.loss import bradley_terry
from music_ray.reward.packing import make_pack
from music_ray.reward.passes import run_pack
from music_ray.reward_model import RewardModel, pad_right

VOCABULARY, WINDOW = 50, 6
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "num_labels": 1,
}
SLIDING: dict[str, Any] = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}
CONFIGS: dict[str, Any] = {
    # The cap is low and the window short, so that losing either shows; the weights are small enough for
    # float32 (1.4e-6 was the largest error of 240 random packs).
    "gemma2": lambda: Gemma2Config(
        **SIZES, **SLIDING, head_dim=16, query_pre_attn_scalar=16, attn_logit_softcapping=2.0
    ),
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES, **SLIDING, use_sliding_window=True),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
}
Sides = list[tuple[np.ndarray, np.ndarray]]


@functools.cache
def model(family: str, attention: str) -> Any:
    """A small model with random weights, the same for every attention."""
    register()
    torch.manual_seed(7)
    built = AutoModelForSequenceClassification.from_config(CONFIGS[family](), attn_implementation="eager")
    if attention == "eager":
        return built.eval()
    other = AutoModelForSequenceClassification.from_config(CONFIGS[family](), attn_implementation=attention)
    other.load_state_dict(built.state_dict())
    return other.eval()


@st.composite
def pairs(draw: st.DrawFn) -> Sides:
    """One to five pairs: random common starts of 0 to 20 tokens, sides of 1 to 20 more."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = []
    for _ in range(draw(st.integers(1, 5))):
        start = rng.integers(1, VOCABULARY, draw(st.integers(0, 20)))
        rests = (rng.integers(1, VOCABULARY, draw(st.integers(1, 20))) for _ in range(2))
        chosen, rejected = (np.concatenate([start, rest]).astype(np.int32) for rest in rests)
        sides.append((chosen, rejected))
    return sides


def padded(family: str, sides: Sides) -> tuple[torch.Tensor, torch.Tensor]:
    """(chosen rewards, rejected rewards) by Hugging Face: two padded batches, its own pooling."""
    rewards = []
    for side in zip(*sides, strict=True):
        ids, mask, _ = pad_right(side, 0)
        rewards.append(model(family, "eager")(input_ids=ids, attention_mask=mask).logits[:, 0])
    return rewards[0], rewards[1]


def gradients(of: Any, chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, torch.Tensor]:
    of.zero_grad()
    bradley_terry(chosen, rejected).mean().backward()
    return {name: one.grad.clone() for name, one in of.named_parameters()}


@pytest.mark.parametrize("family", CONFIGS)
@given(sides=pairs(), share=st.booleans(), multiple=st.sampled_from([1, 64]))
@settings(max_examples=25, deadline=None)
def test_rewards_and_gradients_are_those_of_two_padded_forwards(
    family: str, sides: Sides, share: bool, multiple: int
) -> None:
    reference, ours = model(family, "eager"), model(family, SEGMENTS)
    expected = padded(family, sides)
    found = run_pack(RewardModel(ours), make_pack(sides, share=share, multiple=multiple)).chunk(2)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    theirs, mine = gradients(reference, *expected), gradients(ours, *found)
    for name, gradient in theirs.items():
        # An element is a sum of terms as large as the largest: its error is of their size, not of its own.
        bound = 1e-5 * max(1.0, gradient.abs().max().item())
        assert (mine[name] - gradient).abs().max().item() <= bound, name


@given(sides=pairs(), order=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_a_reward_does_not_depend_on_the_packs_other_pairs(sides: Sides, order: Any) -> None:
    ours = RewardModel(model("gemma2", SEGMENTS))
    places = list(range(len(sides)))
    order.shuffle(places)
    with torch.no_grad():
        together = run_pack(ours, make_pack([sides[place] for place in places], share=True))
        alone = [run_pack(ours, make_pack([sides[place]], share=True)) for place in places]
    torch.testing.assert_close(together, torch.stack(alone, dim=1).flatten(), rtol=1e-5, atol=1e-5)


SIDES = [
    (np.arange(1, 25, dtype=np.int32), np.arange(1, 21, dtype=np.int32)),
    (np.arange(3, 33, dtype=np.int32), np.arange(9, 21, dtype=np.int32)),
]


@pytest.mark.parametrize("family", CONFIGS)
def test_a_lost_mask_shows(family: str) -> None:
    pack = make_pack(SIDES, share=True)
    ours = RewardModel(model(family, SEGMENTS))
    with torch.no_grad():
        right = run_pack(ours, pack)
        everything = PackLayout((Stretch(0, pack.layout.num_tokens),), pack.layout.num_tokens)
        wrong = ours(
            pack.input_ids,
            last_index=pack.last_index,
            position_ids=pack.position_ids,
            pack_layout=everything,
        )
    assert (right[0] - wrong[0]).abs() < 1e-5  # the first side sees nothing but itself either way
    assert (right[1:] - wrong[1:]).abs().max() > 0.05


def test_a_pack_without_its_layout_is_refused() -> None:
    pack = make_pack(SIDES, share=True)
    with pytest.raises(ValueError, match="a pack was computed without its layout"):
        model("llama", SEGMENTS)(input_ids=pack.input_ids, position_ids=pack.position_ids)
    longer = PackLayout(pack.layout.stretches, pack.layout.num_tokens + 1)
    with pytest.raises(ValueError, match=r"the layout is of 1 row of 68 tokens, the pack has 1 rows of 67"):
        model("llama", SEGMENTS).model(input_ids=pack.input_ids, pack_layout=longer)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_layout_and_masks_follow_the_states_to_their_device(softcap: float | None) -> None:
    layout = make_pack(SIDES, share=True).layout
    query, key, value = (torch.empty(1, heads, 67, 16, device="meta") for heads in (4, 2, 2))
    output, _ = segment_attention(None, query, key, value, None, None, WINDOW, softcap, layout)
    assert (output.device.type, output.shape) == ("meta", (1, 67, 4, 16))


@pytest.mark.slow  # the C++ compiler takes half a minute
@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_flex_attention_gives_the_rewards_of_segments(family: str) -> None:
    pack = make_pack(SIDES, share=True, multiple=128)
    with torch.no_grad():
        segments, flex = (run_pack(RewardModel(model(family, name)), pack) for name in (SEGMENTS, FLEX))
    torch.testing.assert_close(flex, segments, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("family", CONFIGS)
def test_flex_attention_has_the_gradients_of_padded_forwards(family: str) -> None:
    expected = padded(family, SIDES)
    theirs = gradients(model(family, "eager"), *expected)
    ours = model(family, FLEX).cuda()
    pack = make_pack(SIDES, share=True, multiple=128).to("cuda")
    found = run_pack(RewardModel(ours), pack).chunk(2)
    mine = gradients(ours, *found)
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name].cpu(), gradient, rtol=1e-3, atol=1e-3, msg=name)
    ours.cpu()
