"""Packs hold every pair once, balance the ranks, and share what the sides have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from music_ray.packed_attention import Stretch, position_ids
from music_ray.reward.packing import make_pack, num_shared, plan_packs


def ids(*tokens: int) -> np.ndarray:
    return np.asarray(tokens, np.int32)


@pytest.mark.parametrize(
    ("chosen", "rejected", "shared"),
    [
        ((1, 2, 3, 9), (1, 2, 4, 9), 2),
        ((1, 2, 3), (4, 2, 3), 0),
        ((1, 2, 3), (1, 2, 3, 4), 2),  # the chosen side's last token stays its own
        ((1, 2, 3), (1, 2, 3), 2),
        ((1,), (1, 2), 0),
    ],
)
def test_the_shared_prefix_ends_before_either_last_token(
    chosen: tuple[int, ...], rejected: tuple[int, ...], shared: int
) -> None:
    assert num_shared(ids(*chosen), ids(*rejected)) == shared
    assert num_shared(ids(*rejected), ids(*chosen)) == shared


def test_a_pack_is_prefix_then_chosen_then_rejected() -> None:
    sides = [(ids(1, 2, 3, 9), ids(1, 2, 4, 5, 9)), (ids(7, 8), ids(6, 8))]
    pack = make_pack(sides, share=True, multiple=8)
    assert pack.input_ids.tolist() == [[1, 2, 3, 9, 4, 5, 9, 7, 8, 6, 8, 0, 0, 0, 0, 0]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 4, 0, 1, 0, 1, 0, 1, 2, 3, 4]]
    assert pack.last_index.tolist() == [3, 8, 6, 10]
    assert pack.layout.stretches == (
        Stretch(0, 4), Stretch(4, 7, 0, 2), Stretch(7, 9), Stretch(9, 11),
    )  # fmt: skip
    assert pack.layout.num_tokens == 16
    whole = make_pack(sides, share=False)
    assert whole.input_ids.tolist() == [[1, 2, 3, 9, 1, 2, 4, 5, 9, 7, 8, 6, 8]]
    assert whole.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 0, 1]]


def test_who_sees_whom_is_the_same_in_the_layout_and_in_its_masks() -> None:
    sides = [(ids(1, 2, 3, 9), ids(1, 2, 4, 5, 9)), (ids(7, 8), ids(6, 8))]
    layout = make_pack(sides, share=True).layout
    pair, side, position = layout._owners()
    assert pair.tolist() == [0] * 7 + [2, 2, 3, 3]
    assert side.tolist() == [0, 0, 1, 1, 2, 2, 2, 0, 0, 0, 0]
    for window in (None, 2):
        seen = (pair[:, None] == pair) & (position[None, :] <= position[:, None])
        seen &= (side[None, :] == 0) | (side[None, :] == side[:, None])
        if window:
            seen &= position[None, :] > position[:, None] - window
        for one in layout.stretches:
            places = [*range(one.prefix_start, one.prefix_end), *range(one.start, one.end)]
            mask = layout.additive_mask(one, window, torch.zeros(1))
            total = len(places)
            causal = torch.ones(total, total).tril()[one.num_prefix :].bool()
            allowed = causal if mask is None else mask == 0
            expected = torch.zeros(one.end - one.start, layout.num_tokens, dtype=torch.bool)
            expected[:, places] = allowed
            assert expected.tolist() == seen[one.start : one.end].tolist()


def test_positions_continue_behind_a_prefix() -> None:
    assert position_ids([Stretch(0, 3), Stretch(3, 5, 0, 2)], 7).tolist() == [0, 1, 2, 2, 3, 0, 1]


@given(
    costs=st.lists(st.integers(1, 300), min_size=1, max_size=64),
    world_size=st.integers(1, 6),
    micro_tokens=st.integers(16, 700),
)
def test_every_pair_is_in_one_pack_and_ranks_take_equal_micro_steps(
    costs: list[int], world_size: int, micro_tokens: int
) -> None:
    plan = plan_packs(costs, world_size, micro_tokens)
    packs = [places for ranks in plan.micro_steps for places in ranks]
    assert sorted(place for places in packs for place in places) == list(range(len(costs)))
    assert {len(ranks) for ranks in plan.micro_steps} == {world_size}
    capacity = max(micro_tokens, *costs)
    loads = [sum(costs[place] for place in places) for places in packs]
    assert max(loads) <= capacity
    assert plan.fullest == [
        max(sum(costs[p] for p in places) for places in ranks) for ranks in plan.micro_steps
    ]
    # Fewer micro-steps would do only if the packs were filled to more than half on average.
    assert len(plan.micro_steps) <= 1 + 2 * sum(costs) // (capacity * world_size) + len(costs) // world_size


def test_packs_of_alike_pairs_are_even() -> None:
    plan = plan_packs([100] * 16, world_size=2, micro_tokens=400)
    assert plan.fullest == [400, 400]
    assert [len(places) for ranks in plan.micro_steps for places in ranks] == [4, 4, 4, 4]


def test_a_pair_above_the_limit_has_a_pass_of_its_own() -> None:
    plan = plan_packs([900, 50, 60], world_size=1, micro_tokens=100)
    assert plan.of_rank(0) == [[0], [2, 1]]
