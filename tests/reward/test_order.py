from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.reward.order import PairOrder, micro_steps, shares

IDS = [f"pair-{number}" for number in range(17)]
ORIGINS = ["D" if number % 3 else "D_MUSIC" for number in range(17)]
"""11 pairs of D and 6 of D_MUSIC."""


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


def stream(order: PairOrder, steps: int) -> list[int]:
    return [index for step in range(steps) for index in order.step(step)]


mixes: Any = st.fixed_dictionaries(
    {
        "origins": st.lists(st.sampled_from(["D", "D_MUSIC"]), min_size=2, max_size=30).filter(
            lambda origins: len(set(origins)) == 2
        ),
        "of_d": st.one_of(st.integers(1, 99), st.floats(0.001, 1000, allow_subnormal=False)),
        "of_music": st.one_of(st.integers(1, 99), st.floats(0.001, 1000, allow_subnormal=False)),
        "pairs_per_step": st.integers(1, 13),
        "seed": st.integers(0, 3),
    }
)


def order_of(mix: dict[str, Any]) -> tuple[PairOrder, dict[str, float]]:
    weights = {"D_MUSIC": mix["of_music"], "D": mix["of_d"]}
    ids = [f"pair-{number}" for number in range(len(mix["origins"]))]
    return PairOrder(ids, mix["seed"], mix["pairs_per_step"], mix["origins"], weights), weights


@given(mix=mixes, start=st.integers(0, 200), length=st.integers(1, 200))
def test_any_stretch_holds_each_origins_share_to_within_one_pair(mix: Any, start: int, length: int) -> None:
    order, weights = order_of(mix)
    seen = stream(order, -(-(start + length) // order.pairs_per_step))[start : start + length]
    counts = Counter(order.origins[index] for index in seen)
    for origin, share in shares(weights).items():
        assert abs(counts[origin] - length * share) < 1


@given(mix=mixes, steps=st.integers(1, 40))
def test_every_pair_stands_once_in_each_epoch_of_its_origin(mix: Any, steps: int) -> None:
    order, _ = order_of(mix)
    seen = stream(order, steps)
    for origin in ("D", "D_MUSIC"):
        members = [index for index, one in enumerate(order.origins) if one == origin]
        of_origin = [index for index in seen if order.origins[index] == origin]
        for start in range(0, len(of_origin), len(members)):
            epoch = of_origin[start : start + len(members)]
            assert len(set(epoch)) == len(epoch) and set(epoch) <= set(members)
        assert order.passes(steps)[origin] == pytest.approx(len(of_origin) / len(members))


@given(mix=mixes, step=st.integers(0, 40))
def test_a_weighted_step_is_the_same_whatever_ran_before(mix: Any, step: int) -> None:
    walked, _ = order_of(mix)
    walked.passes(step + 3)
    expected = [walked.step(number) for number in range(step + 1)][-1]
    fresh, _ = order_of(mix)
    assert fresh.step(step) == expected
    # Nor on the order of the files, nor on how the weights are written.
    ids = [f"pair-{number}" for number in range(len(mix["origins"]))]
    backwards = ids[::-1]
    other = PairOrder(
        backwards, mix["seed"], mix["pairs_per_step"], mix["origins"][::-1],
        {"D": Fraction(str(mix["of_d"])) * 2, "D_MUSIC": Fraction(str(mix["of_music"])) * 2},
    )  # fmt: skip
    assert [backwards[index] for index in other.step(step)] == [ids[index] for index in expected]


def test_weighted_order_is_pinned_across_versions() -> None:
    order = PairOrder(IDS, 0, 10, ORIGINS, {"D": 0.7, "D_MUSIC": 0.3})
    assert [Counter(ORIGINS[index] for index in order.step(step))["D"] for step in range(5)] == [7] * 5
    assert ["DM"[ORIGINS[index] == "D_MUSIC"] for index in order.step(0)] == list("DMDDDMDDMD")
    assert order.step(0) == [1, 12, 2, 7, 13, 6, 4, 5, 15, 14]
    # Among themselves the pairs of an origin stand in the order that they have without weights.
    plain = PairOrder(IDS, 0, 17).step(0)
    of_d = [index for index in stream(order, 2) if ORIGINS[index] == "D"][:11]
    assert of_d == [index for index in plain if ORIGINS[index] == "D"]


def test_passes_are_counted_by_origin_and_by_any_label() -> None:
    order = PairOrder(IDS, 0, 10, ORIGINS, {"D": 0.7, "D_MUSIC": 0.3})
    assert order.passes(0) == {"D": 0.0, "D_MUSIC": 0.0}
    assert order.passes(11) == {"D": 7.0, "D_MUSIC": 5.5}
    halves = ["low" if number < 8 else "high" for number in range(17)]
    seen = Counter(halves[index] for index in stream(order, 11))
    assert order.passes(11, halves) == {"high": seen["high"] / 9, "low": seen["low"] / 8}
    # Without weights an origin's share of an epoch that is under way depends on the order.
    plain = PairOrder(IDS, 0, 10, ORIGINS)
    assert plain.passes(17) == {"D": 10.0, "D_MUSIC": 10.0}
    first = Counter(ORIGINS[index] for index in plain.step(0))
    assert plain.passes(1) == {"D": first["D"] / 11, "D_MUSIC": first["D_MUSIC"] / 6}
    assert PairOrder(IDS, 0, 10).passes(3) == {"all": 30 / 17}


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
