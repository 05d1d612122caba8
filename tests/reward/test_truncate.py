from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.reward.truncate import cut_to_fit, num_shared_turns
from music_ray.schema import split_turns
from tests.reward.conftest import conversation


def size(messages: list[Any]) -> int:
    return sum(len(message["content"]) for message in messages)


def cut(chosen: list[Any], rejected: list[Any], limit: int) -> Any:
    return cut_to_fit(chosen, rejected, lambda left, right: max(size(left), size(right)) <= limit)


def test_a_turn_goes_with_its_reply() -> None:
    chosen = conversation("aaaa", "bbbb", "cc", "dd")
    rejected = conversation("aaaa", "bbbb", "cc", "e")
    assert cut(chosen, rejected, 6) == (conversation("cc", "dd"), conversation("cc", "e"))


def test_what_fits_is_not_cut() -> None:
    chosen, rejected = conversation("a", "b"), conversation("a", "c")
    assert cut(chosen, rejected, 2) == (chosen, rejected)


def test_a_turn_in_which_the_sides_differ_stays() -> None:
    chosen = conversation("a", "good", "c", "d")
    rejected = conversation("a", "bad", "c", "d")
    assert num_shared_turns(chosen, rejected) == 0
    assert cut(chosen, rejected, 4) is None


@pytest.mark.parametrize("long_side", [0, 1])
def test_where_one_side_alone_is_too_long_both_lose_the_same_turns(long_side: int) -> None:
    short, long = conversation("aa", "bb", "cc", "d"), conversation("aa", "bb", "cc", "eeee")
    sides = (long, short) if long_side == 0 else (short, long)
    assert (size(short), size(long)) == (7, 10)
    assert cut(*sides, 8) == (sides[0][2:], sides[1][2:])
    assert cut(*sides, 5) is None  # the short side would fit


def test_one_long_side_without_a_shared_turn_cannot_be_cut() -> None:
    short, long = conversation("a", "b"), conversation("a", "bbbb", "c", "d")
    assert cut(short, long, 5) is None and cut(long, short, 5) is None
    assert cut(short, long, 7) == (short, long)


def test_the_last_turn_stays_even_where_it_is_shared() -> None:
    same = conversation("a", "b", "c", "d")
    assert num_shared_turns(same, same) == 1


texts = st.text("ab", min_size=1, max_size=4)


@given(
    shared=st.lists(st.tuples(texts, texts), max_size=4),
    left=st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    right=st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    limit=st.integers(1, 40),
)
def test_both_sides_lose_the_same_shared_turns_and_no_more_than_needed(
    shared: Any, left: Any, right: Any, limit: int
) -> None:
    chosen = conversation(*[text for turn in shared + left for text in turn])
    rejected = conversation(*[text for turn in shared + right for text in turn])
    result = cut(chosen, rejected, limit)
    turns = num_shared_turns(chosen, rejected)
    if result is None:
        kept = [message for turn in split_turns(chosen)[turns:] for message in turn]
        other = [message for turn in split_turns(rejected)[turns:] for message in turn]
        assert max(size(kept), size(other)) > limit
        return
    lost = (len(chosen) - len(result[0])) // 2
    assert lost <= turns
    assert chosen[2 * lost :] == result[0] and rejected[2 * lost :] == result[1]
    assert chosen[: 2 * lost] == rejected[: 2 * lost]
    assert max(map(size, result)) <= limit
    if lost:
        one_less = chosen[2 * lost - 2 :], rejected[2 * lost - 2 :]
        assert max(map(size, one_less)) > limit
