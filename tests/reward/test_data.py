from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from music_ray import rundir
from music_ray.chat import ChatFormat
from music_ray.errors import InputError
from music_ray.reward import tokenise
from music_ray.reward.data import PairTokens, prepare_tokens
from music_ray.reward.token_file import tokens_made_from, write_tokens
from music_ray.reward.tokenise import tokenise_pair, tokenised_by_ray, tokenised_here
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, PreferencePair, to_table
from tests.reward.conftest import conversation, make_pair, make_tokenizer, write_mix
from tests.reward.zero3_ranks import object_store


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
    assert prepare_tokens(run, chat) == found
    pairs = PairTokens.open(run, found.name)
    assert (found.num_pairs, found.dropped, len(pairs)) == (9, {"sides_equal": 1}, 9)
    assert found.origins == {"D": 4, "D_MUSIC": 5}
    assert pairs.origins == ["D_MUSIC", "D"] * 4 + ["D_MUSIC"] and pairs.sources == ["test"] * 9
    assert pairs.margins.tolist() == [0.0] * 9 and pairs.margins.dtype == np.float32
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


def test_a_mix_of_bad_pairs_alone_is_refused_with_every_reason(make_run: Any, gemma2_folder: Any) -> None:
    run = make_run(gemma2_folder, pairs=0)
    run.write_table(to_table([bad_pair(n) for n in range(4)], PAIR_SCHEMA), "mix", "train-00001.parquet")
    with pytest.raises(InputError) as caught:
        prepare_tokens(run, ChatFormat.load(str(gemma2_folder)))
    assert str(caught.value) == (
        f"no pair of {run.display('mix')} can be trained on (dropped: empty_side 1, over_length 1, "
        "sides_equal 2): where it is over_length, raise train.max_tokens (64) or set train.over_length=cut"
    )


def test_an_absent_mix_is_refused(make_run: Any, gemma2_folder: Any) -> None:
    run = make_run(gemma2_folder)
    run.clear("mix")
    with pytest.raises(InputError, match="holds no pairs to train on: run the mix stage first"):
        prepare_tokens(run, ChatFormat.load(str(gemma2_folder)))


def content(run: RunDir, name: str) -> tuple[bytes, str]:
    """The token file's bytes, and the counts beside it."""
    return run.read_bytes("checkpoints", name), run.read_text("checkpoints", f"{name}.json")


def bad_pair(number: int) -> PreferencePair:
    """A pair that is dropped, for a reason that depends on its number."""
    equal, long = conversation("one", "two"), conversation("one", "red " * 60)
    sides = [(equal, equal), (equal, long), (equal, conversation("one", " "))][number % 3]
    return PreferencePair(f"bad-{number:03d}", "test", "D", 1, 1, 1, *sides)


def test_who_comes_first_does_not_change_the_file(make_run: Any, gemma2_folder: Path) -> None:
    chat = ChatFormat.load(str(gemma2_folder))
    runs = [make_run(gemma2_folder, pairs=600, name=name) for name in ("a", "b")]
    found = prepare_tokens(runs[0], chat)
    files = runs[1].parquet_files("mix")
    tables = list(tokenised_here(runs[1], chat, files))
    assert len(tables) == 3
    again = write_tokens(runs[1], tokens_made_from(runs[1], chat, files), reversed(tables))
    assert again == found
    assert content(runs[1], again.name) == content(runs[0], found.name)


@pytest.fixture
def ray_session() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.mark.slow
def test_ray_makes_the_same_file(
    make_run: Any, gemma2_folder: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = ChatFormat.load(str(gemma2_folder))
    # What the template says here and not in the model's folder: workers take the tokenizer that they get.
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("<end_of_turn>", "<eos>")
    runs = [make_run(gemma2_folder, pairs=1300, name=name) for name in ("here", "ray")]
    for run in runs:
        run.write_table(to_table([bad_pair(n) for n in range(10)], PAIR_SCHEMA), "mix", "train-00001.parquet")
    here = prepare_tokens(runs[0], chat)
    monkeypatch.setattr(tokenise, "_HERE_AT_MOST", 1309)
    by_ray = prepare_tokens(runs[1], chat)
    assert by_ray == here
    assert (here.num_pairs, here.dropped) == (1300, {"empty_side": 3, "over_length": 3, "sides_equal": 4})
    assert content(runs[1], by_ray.name) == content(runs[0], here.name)
    sizes = [len(table) for table in tokenised_by_ray(runs[1], chat, runs[1].parquet_files("mix"))]
    assert sum(sizes) == 1310 and max(sizes) <= 256


def test_a_damaged_token_file_is_made_again(
    make_run: Any, gemma2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, run = ChatFormat.load(str(gemma2_folder)), make_run(gemma2_folder)
    found = prepare_tokens(run, chat)
    sound = content(run, found.name)
    assert "again" not in said(capsys)
    run.write_bytes(sound[0][:-100], "checkpoints", found.name)
    with pytest.raises(InputError) as caught:
        PairTokens.open(run, found.name)
    path = run.path("checkpoints", found.name)
    assert str(caught.value).startswith(f"{path} cannot be used (")
    assert str(caught.value).endswith("): remove it, it is made again from the mix")
    assert prepare_tokens(run, chat) == found
    assert f"train: {found.name} cannot be used (" in said(capsys)
    assert content(run, found.name) == sound
    run.write_text(sound[1][:20], "checkpoints", f"{found.name}.json")
    assert prepare_tokens(run, chat) == found
    run.fs.delete_file(path)
    assert prepare_tokens(run, chat) == found
    assert content(run, found.name) == sound


def test_tokens_of_another_tokenizer_are_not_used(
    make_run: Any, gemma2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, run = ChatFormat.load(str(gemma2_folder)), make_run(gemma2_folder)
    found = prepare_tokens(run, chat)
    other = ChatFormat.load(str(gemma2_folder))
    other.tokenizer.add_tokens(["purple"])
    of_other = prepare_tokens(run, other)
    assert of_other.key != found.key
    assert f"train: {found.name} is of another tokenizer: tokenising the mix again" in said(capsys)
    # Even under the right name.
    run.write_bytes(run.read_bytes("checkpoints", of_other.name), "checkpoints", found.name)
    with pytest.raises(
        InputError, match=f"it holds the tokens of {of_other.key}, made with another tokenizer"
    ):
        PairTokens.open(run, found.name)
    assert prepare_tokens(run, chat) == found
    assert f"it holds the tokens of {of_other.key}" in said(capsys)
    assert len(PairTokens.open(run, found.name)) == 17


def test_a_token_file_of_an_older_version_is_made_again_under_its_key(
    make_run: Any, gemma2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, run = ChatFormat.load(str(gemma2_folder)), make_run(gemma2_folder)
    found = prepare_tokens(run, chat)
    with pa.memory_map(run.path("checkpoints", found.name)) as file:
        old = pa.ipc.open_file(file).read_all().drop_columns("margin")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, old.schema) as writer:
        writer.write_table(old)
    run.write_bytes(sink.getvalue(), "checkpoints", found.name)
    facts = {"num_pairs": 17, "num_tokens": found.num_tokens, "dropped": {}}
    run.write_text(json.dumps(facts), "checkpoints", f"{found.name}.json")
    assert prepare_tokens(run, chat) == found
    assert "(another version of music_ray made it): tokenising the mix again" in said(capsys)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr()).replace("\n", " ")


def test_margins_are_kept_where_they_are_used(make_run: Any, gemma2_folder: Path) -> None:
    chat = ChatFormat.load(str(gemma2_folder))
    margins = [None, 0.0, 0.25, 3.0, None, 1e9, -0.5, math.nan, math.inf]
    with_margins = make_run(gemma2_folder, pairs=0, loss={"margin": True})
    without = make_run(gemma2_folder, pairs=0, name="without")
    for run in (with_margins, without):
        write_mix(run, margins)
    found = prepare_tokens(with_margins, chat)
    assert (found.num_pairs, found.num_margins, found.dropped) == (6, 4, {"bad_margin": 3})
    pairs = PairTokens.open(with_margins, found.name)
    assert dict(zip(pairs.ids, pairs.margins.tolist(), strict=True)) == {
        "pair-000": 0.0, "pair-001": 0.0, "pair-002": 0.25, "pair-003": 3.0, "pair-004": 0.0, "pair-005": 1e9,
    }  # fmt: skip
    # Where they are not used a column of that name costs nothing, whatever it holds.
    unused = prepare_tokens(without, chat)
    assert (unused.num_pairs, unused.num_margins, unused.dropped) == (9, 0, {})
    assert unused.key != found.key
    assert not PairTokens.open(without, unused.name).margins.any()


def test_margins_that_nobody_gave_are_refused(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, loss={"margin": True})
    with pytest.raises(InputError) as caught:
        prepare_tokens(run, ChatFormat.load(str(gemma2_folder)))
    assert str(caught.value) == (
        "train.loss.margin is true, but none of the 17 pairs has a margin: give the rows of data.sources a "
        "number `margin` and run the seeds and mix stages again, or set train.loss.margin=false"
    )


@pytest.mark.parametrize(
    ("weights", "pairs", "message"),
    [
        (
            {"D": 0.25, "D_MUSIC": 0.75},
            8,
            "train.mix_weights asks for up to 5 pairs of D_MUSIC in a step of 6, but 4 of them can be "
            "trained on: lower its weight or train.pairs_per_step, or get more pairs",
        ),
        (
            {"D": 1, "D_MUSIC": 1},
            1,
            "train.mix_weights asks for up to 3 pairs of D in a step of 6, but 0 of them can be trained on: "
            "lower its weight or train.pairs_per_step, or get more pairs",
        ),
    ],
)
def test_weights_that_do_not_fit_the_pairs_are_refused(
    make_run: Any, gemma2_folder: Path, weights: Any, pairs: int, message: str
) -> None:
    run = make_run(gemma2_folder, pairs=pairs, mix_weights=weights)
    with pytest.raises(InputError) as caught:
        prepare_tokens(run, ChatFormat.load(str(gemma2_folder)))
    assert str(caught.value) == message


def test_weights_that_fit_are_taken(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, pairs=8, mix_weights={"D": 2, "D_MUSIC": 4})
    assert prepare_tokens(run, ChatFormat.load(str(gemma2_folder))).origins == {"D": 4, "D_MUSIC": 4}


def test_an_object_store_holds_the_same_file(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, here = ChatFormat.load(str(gemma2_folder)), make_run(gemma2_folder, name="here")
    found = prepare_tokens(here, chat)
    monkeypatch.setattr(rundir, "open_filesystem", object_store)
    there = make_run(gemma2_folder, name="there")
    assert not there.is_local
    assert prepare_tokens(there, chat) == prepare_tokens(there, chat) == found
    assert content(there, found.name) == content(here, found.name)
    assert PairTokens.open(there, found.name).ids == PairTokens.open(here, found.name).ids
    there.write_bytes(b"ARROW1", "checkpoints", found.name)
    with pytest.raises(InputError, match="cannot be used"):
        PairTokens.open(there, found.name)
    assert prepare_tokens(there, chat) == found
    assert f"train: {found.name} cannot be used (" in said(capsys)
    there.clear("checkpoints")
    with pytest.raises(InputError, match="with several nodes runs_dir must be a shared file system"):
        PairTokens.open(there, found.name)
