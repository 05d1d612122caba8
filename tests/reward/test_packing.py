"""Packs hold every pair once, balance the ranks, and share what the sides have in common."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from music_ray.packed_layout import PackLayout, Stretch, position_ids
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
        for number, group in enumerate(layout.groups):
            mask = layout.group_mask(number, window, torch.zeros(1))
            causal = torch.ones(group.num_queries, group.num_keys).tril().bool()
            for place, one in enumerate(group.stretches):
                allowed = causal if mask is None else mask[place] == 0
                keys = group.key_rows()[place, : one.num_keys]
                expected = torch.zeros(one.num_queries, layout.num_tokens, dtype=torch.bool)
                expected[:, keys] = allowed[: one.num_queries, : one.num_keys]
                assert expected.tolist() == seen[one.start : one.end].tolist()


def test_stretches_of_like_size_are_one_batch_and_long_ones_stay_alone() -> None:
    ends = [0, 3, 11, 20, 36, 336, 626]
    stretches = [Stretch(start, end) for start, end in itertools.pairwise(ends)]
    continued = [Stretch(626, 628, 0, 3), Stretch(628, 630, 3, 9)]
    layout = PackLayout((*stretches, *continued), 640)
    found = [([one.num_keys for one in group.stretches], group.num_queries) for group in layout.groups]
    assert found == [([3, 8], 8), ([9, 16], 16), ([300], 300), ([290], 290), ([5, 8], 2)]


def test_every_token_has_one_row_in_its_group_and_padding_a_row_of_its_own() -> None:
    layout = PackLayout((Stretch(0, 3), Stretch(3, 7), Stretch(7, 9, 3, 5)), 10)
    rows = layout.rows(torch.device("cpu"))
    # A group of two stretches of 4 queries, the first of them padded, then one of 2 queries and 4 keys.
    assert rows.queries.tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 7, 8]
    assert rows.keys.tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 3, 4, 7, 8]
    assert rows.outputs.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


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
