from __future__ import annotations

from typing import Any

import pytest

from music_ray.chat import ChatFormat
from music_ray.errors import InputError
from music_ray.reward.data import PairTokens, prepare_tokens, tokenise_pair
from music_ray.schema import PAIR_SCHEMA, PreferencePair, to_table
from tests.reward.conftest import conversation, make_pair, make_tokenizer


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat.of(make_tokenizer())


def both(chat: ChatFormat, chosen: Any, rejected: Any, *, limit: int = 64, rule: str = "drop") -> Any:
    return tokenise_pair(chat, chosen, rejected, limit, rule)


def test_tokens_are_the_rendered_conversations(chat: ChatFormat) -> None:
    chosen, rejected = conversation("one", "two"), conversation("one", "three four")
    left, right = both(chat, chosen, rejected)
    text = "<bos> <start_of_turn> user one <end_of_turn> <start_of_turn> assistant two <end_of_turn>"
    assert chat.tokenizer.convert_ids_to_tokens(left) == text.split()
    assert len(right) == len(left) + 1


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ([], conversation("one", "two"), "empty_side"),
        (conversation("one", "two"), conversation("one", "  "), "empty_side"),
        (conversation("one", "two"), conversation("one", "two", "three"), "empty_side"),
        (conversation("one", "two"), conversation("one", "two"), "sides_equal"),
        (conversation("one", "two"), conversation("one", "  two "), "sides_equal"),
        (conversation("one", "two"), conversation("one", "two " * 60), "over_length"),
        (
            conversation("one", "two"),
            [*conversation("one", "two"), {"role": "assistant", "content": "two"}],
            "template_refused",
        ),
    ],
)
def test_pairs_that_cannot_be_trained_on(chat: ChatFormat, chosen: Any, rejected: Any, reason: str) -> None:
    assert both(chat, chosen, rejected) == reason


def test_only_one_side_over_the_limit_cuts_both(chat: ChatFormat) -> None:
    start = ["one", "two"]
    chosen, rejected = conversation(*start, "red", "green"), conversation(*start, "red", "blue blue blue")
    lengths = [len(chat.conversation_ids(side)) for side in (chosen, rejected)]
    assert lengths == [17, 19]
    assert both(chat, chosen, rejected, limit=18) == "over_length"
    left, right = both(chat, chosen, rejected, limit=18, rule="cut")
    assert left == chat.conversation_ids(chosen[2:])
    assert right == chat.conversation_ids(rejected[2:])


def test_token_file_holds_the_pairs_and_the_counts(make_run: Any, gemma2_folder: Any) -> None:
    run = make_run(gemma2_folder, pairs=9)
    equal = conversation("one", "two")
    bad = PreferencePair("bad", "test", "D", 1, 1, 1, equal, equal)
    run.write_table(to_table([bad], PAIR_SCHEMA), "mix", "train-00001.parquet")
    run.write_table(to_table([make_pair(50)], PAIR_SCHEMA), "mix", "held_out", "music.parquet")
    chat = ChatFormat.load(str(gemma2_folder))
    found = prepare_tokens(run, chat)
    pairs = PairTokens.open(run, found.name)
    assert (found.num_pairs, found.dropped, len(pairs)) == (9, {"sides_equal": 1}, 9)
    assert pairs.ids == [f"pair-{number:03d}" for number in range(9)]
    assert found.num_tokens == sum(len(side) for index in range(9) for side in pairs.sides(index))
    for index in (0, 4, 8):
        pair = make_pair(index)
        expected = [chat.conversation_ids(side) for side in (pair.chosen, pair.rejected)]
        assert [side.tolist() for side in pairs.sides(index)] == expected
        assert pairs.lengths[index] == max(map(len, expected))


def test_token_file_is_keyed_by_content(make_run: Any, gemma2_folder: Any) -> None:
    chat = ChatFormat.load(str(gemma2_folder))
    key = prepare_tokens(make_run(gemma2_folder), chat).key
    assert prepare_tokens(make_run(gemma2_folder, name="b"), chat).key == key
    assert prepare_tokens(make_run(gemma2_folder, name="c", pairs=16), chat).key != key
    assert prepare_tokens(make_run(gemma2_folder, name="d", max_tokens=63), chat).key != key
    other = ChatFormat.load(str(gemma2_folder))
    other.tokenizer.chat_template = other.tokenizer.chat_template.replace("<end_of_turn>", "<eos>")
    assert prepare_tokens(make_run(gemma2_folder, name="e"), other).key != key


def test_a_mix_without_a_usable_pair_is_refused(make_run: Any, gemma2_folder: Any) -> None:
    run = make_run(gemma2_folder, pairs=0, max_tokens=16)
    long = PreferencePair("long", "test", "D", 1, 1, 1, *[conversation("one", t * 20) for t in ("a ", "b ")])
    run.write_table(to_table([long], PAIR_SCHEMA), "mix", "train-00001.parquet")
    with pytest.raises(InputError) as caught:
        prepare_tokens(run, ChatFormat.load(str(gemma2_folder)))
    assert "can be trained on (dropped: over_length 1)" in str(caught.value)
    assert "raise train.max_tokens (16) or set train.over_length=cut" in str(caught.value)


def test_an_absent_mix_is_refused(make_run: Any, gemma2_folder: Any) -> None:
    run = make_run(gemma2_folder)
    run.clear("mix")
    with pytest.raises(InputError, match="holds no pairs to train on: run the mix stage first"):
        prepare_tokens(run, ChatFormat.load(str(gemma2_folder)))
