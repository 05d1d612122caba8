"""Which turns are spoiled."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.generate.schedule import contrast_turns


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("all", {1, 2, 3, 4, 5}),
        ("from_turn:1", {1, 2, 3, 4, 5}),
        ("from_turn:4", {4, 5}),
        ("turns:[2]", {2}),
        ("turns:[5, 1, 1]", {1, 5}),
        ("probability:1", {1, 2, 3, 4, 5}),
    ],
)
def test_schedule_names_its_turns(schedule, expected):
    assert contrast_turns(schedule, 5, run_seed=0, seed_id=7) == expected


@given(seed_id=st.integers(0, 2**62), turns=st.integers(1, 12))
def test_probability_draws_at_least_one_turn_and_the_same_ones_again(seed_id, turns):
    drawn = contrast_turns("probability:0.05", turns, run_seed=3, seed_id=seed_id)
    assert drawn and drawn <= set(range(1, turns + 1))
    assert drawn == contrast_turns("probability:0.05", turns, run_seed=3, seed_id=seed_id)


def test_probability_spoils_that_share_of_turns():
    drawn = [contrast_turns("probability:0.5", 10, run_seed=0, seed_id=seed) for seed in range(2000)]
    share = sum(len(turns) for turns in drawn) / 20_000
    assert 0.48 < share < 0.52


def test_the_one_forced_turn_is_uniform():
    drawn = [contrast_turns("probability:0.000001", 4, run_seed=0, seed_id=seed) for seed in range(4000)]
    counts = Counter(turn for turns in drawn for turn in turns)
    assert set(counts) == {1, 2, 3, 4} and all(900 < count < 1100 for count in counts.values())
