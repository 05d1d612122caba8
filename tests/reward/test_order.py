from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from music_ray.reward.order import PairOrder, micro_steps

IDS = [f"pair-{number}" for number in range(17)]


def test_every_pair_stands_once_in_an_epoch_even_where_steps_cross_it() -> None:
    order = PairOrder(IDS, seed=1, pairs_per_step=5)
    stream = [index for step in range(17) for index in order.step(step)]  # 85 = 5 epochs of 17
    for epoch in range(5):
        assert sorted(stream[epoch * 17 : (epoch + 1) * 17]) == list(range(17))


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    walked = PairOrder(IDS, seed=1, pairs_per_step=5)
    steps = [walked.step(step) for step in range(12)]
    assert PairOrder(IDS, seed=1, pairs_per_step=5).step(11) == steps[11]
    assert walked.step(0) == steps[0]


def test_epochs_and_seeds_give_other_orders() -> None:
    order = PairOrder(IDS, seed=1, pairs_per_step=17)
    assert order.step(0) != order.step(1)
    assert order.step(0) != PairOrder(IDS, seed=2, pairs_per_step=17).step(0)


def test_order_does_not_depend_on_the_order_of_the_files() -> None:
    backwards = IDS[::-1]
    one = [IDS[index] for index in PairOrder(IDS, 1, 6).step(3)]
    other = [backwards[index] for index in PairOrder(backwards, 1, 6).step(3)]
    assert one == other


def test_order_is_pinned_across_versions() -> None:
    assert PairOrder(IDS, seed=0, pairs_per_step=6).step(0) == [1, 12, 2, 6, 15, 7]


@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=40),
    world_size=st.integers(1, 7),
    micro_pairs=st.integers(1, 5),
)
def test_ranks_share_a_step_evenly(lengths: list[int], world_size: int, micro_pairs: int) -> None:
    step = list(range(100, 100 + len(lengths)))
    ranks = [micro_steps(step, lengths, rank, world_size, micro_pairs) for rank in range(world_size)]
    # ZeRO-3 gathers parameters collectively: as many passes on every rank.
    assert len({len(rank) for rank in ranks}) == 1
    placed = [one for rank in ranks for micro in rank for one in micro]
    assert Counter(one.place for one in placed) == Counter(range(len(step)))
    assert all(step[one.place] == one.index for one in placed)
    assert max(len(micro) for rank in ranks for micro in rank) <= micro_pairs
    counts = [sum(map(len, rank)) for rank in ranks]
    assert max(counts) - min(counts) <= 1


def test_work_is_balanced_by_length() -> None:
    lengths = [100, 90, 80, 70, 60, 50, 40, 30]
    loads = [
        sum(lengths[one.place] for micro in micro_steps(range(8), lengths, rank, 2, 2) for one in micro)
        for rank in range(2)
    ]
    assert loads == [260, 260]
