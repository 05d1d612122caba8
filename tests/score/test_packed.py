"""Packs of conversations against one conversation after the other, and how much they save."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray import reward_model
from music_ray.score.packed import num_common, rows, score_packed
from tests.reward.conftest import make_model

TOKENS = st.lists(st.integers(3, 9), min_size=1, max_size=30)


@pytest.fixture(scope="module", params=["gemma2", "llama"])
def models(request, tmp_path_factory):
    folder = str(make_model(tmp_path_factory.mktemp("model"), request.param))
    load = reward_model.load_reward_model
    return load(folder, head_seed=3, attention="segments"), load(folder, head_seed=3, attention="eager")


@settings(max_examples=30, deadline=None)
@given(start=TOKENS, ends=st.lists(TOKENS, min_size=1, max_size=6), others=st.lists(TOKENS, max_size=4))
def test_rewards_are_those_of_each_conversation_by_itself(models, start, ends, others):
    packed, plain = models
    given = [start + end for end in ends] + others + [start, start]
    found = score_packed(packed, given, pack_tokens=64)
    for ids, reward in zip(given, found, strict=True):
        with torch.inference_mode():
            alone = reward_model.RewardModel(plain)(torch.tensor([ids]), None, torch.tensor([len(ids) - 1]))
        assert reward == pytest.approx(alone.item(), rel=1e-5, abs=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    given=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=12),
    limit=st.integers(16, 64),
)
def test_every_conversation_is_in_one_pack_and_all_of_it_can_be_read(given, limit):
    seen = []
    for row in rows(given, limit):
        assert len(row.tokens) <= max(limit, max(map(len, given)))
        for index, one in zip(row.indices, row.stretches, strict=True):
            read = row.tokens[one.prefix_start : one.prefix_end] + row.tokens[one.start : one.end]
            assert read == given[index]
            assert one.end > one.start  # the pooled token is the conversation's own
            assert one.prefix_start == 0 or one.prefix_start in [other.start for other in row.stretches]
            seen.append(index)
    assert sorted(seen) == list(range(len(given)))


def test_a_pair_takes_its_common_beginning_once_though_another_pair_begins_like_it():
    system = list(range(10, 30))
    pairs = [[*system, first, *range(50, 90), last] for first in (1, 2) for last in (5, 6)]
    (row,) = rows(pairs, 1000)
    # The two pairs share 20 tokens, the sides of each share 61: each pair keeps its own beginning.
    assert len(row.tokens) == 2 * (62 + 1)
    (row,) = rows([pairs[0], pairs[2]], 1000)
    assert len(row.tokens) == 62 + 42


@pytest.mark.parametrize(
    ("one", "other", "number"),
    [
        ([1, 2, 3], [1, 2, 4], 2),
        ([1, 2, 3], [1, 2, 3], 2),
        ([1, 2], [1, 2, 3], 1),
        ([1], [1], 0),
        ([], [1], 0),
    ],
)
def test_common_beginnings_leave_both_a_last_token(one, other, number):
    assert num_common(one, other) == num_common(other, one) == number
