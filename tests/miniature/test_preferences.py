"""D, the corpus, and that nothing of them is in a suite."""

from collections import Counter
from itertools import chain
from types import SimpleNamespace

import pytest

from music_ray.config import ContrastConfig, DataConfig
from music_ray.errors import InputError
from music_ray.generate.contrasts.tags import find_joint
from music_ray.generate.read_preferences import SetAside, read_preferences
from music_ray.miniature.check import examine, wrong_turns
from music_ray.miniature.language import CONTRAST_TEMPLATE, tokens, vocabulary
from music_ray.miniature.preferences import (
    contrast_prompt,
    corpus_rows,
    first_messages,
    foreign_rows,
    preference_rows,
    write_rows,
)
from music_ray.miniature.suites import SUITES, build
from music_ray.miniature.world import split_of
from music_ray.prompts import own
from music_ray.replicate.shortcuts import lengths, reply_features
from tests.miniature.surface import auc


@pytest.fixture(scope="module")
def rows():
    return preference_rows(2_000)


@pytest.fixture(scope="module")
def corpus():
    return list(corpus_rows(1_500))


def test_the_sides_differ_in_the_final_reply_alone(rows):
    for row in rows:
        assert row["chosen"][:-1] == row["rejected"][:-1]
        assert wrong_turns(row["chosen"]) == []
        assert wrong_turns(row["rejected"]) == [row["num_turns"]]
    assert Counter(row["num_turns"] for row in rows) == {1: 500, 2: 500, 3: 500, 4: 500}


def test_no_count_tells_the_sides_apart(rows):
    pairs = [SimpleNamespace(**row) for row in rows]
    assert auc(pairs, lengths) == pytest.approx(0.5, abs=0.03)
    assert auc(pairs, reply_features) < 0.6


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_pipeline_reads_every_row(rows, tmp_path, suffix):
    path = tmp_path / f"D{suffix}"
    assert write_rows(rows[:200], path) == 200
    found = list(read_preferences(DataConfig(sources=[{"path": str(path)}])))
    assert not [row for row in found if isinstance(row, SetAside)]
    assert [(pair.id, pair.chosen, pair.rejected) for pair in found] == [
        (row["id"], row["chosen"], row["rejected"]) for row in rows[:200]
    ]
    assert all(pair.branch_turn == pair.num_turns for pair in found)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"D\.csv: name a file that ends on \.parquet or \.jsonl"):
        write_rows([], tmp_path / "D.csv")


def test_the_corpus_teaches_no_wrong_reply_outside_the_contrast_prompt(corpus):
    for row in corpus:
        if row["learn"] == "all":
            assert wrong_turns(row["messages"]) == []
    kinds = Counter(row["learn"] for row in corpus)
    assert 0.3 < kinds["last"] / len(corpus) < 0.4


def test_the_corpus_shows_the_contrast_prompt_as_generate_writes_it(corpus):
    config = ContrastConfig(template=CONTRAST_TEMPLATE)
    own.check(config, 3)
    end = CONTRAST_TEMPLATE.partition("\n")[2].strip()
    history = [{"role": "user", "content": "Sort d b."}]
    assert contrast_prompt(history, 1) == f"Sort d b.\n{end}"
    spoiled_before = 0
    for row in corpus:
        if row["learn"] == "all":
            continue
        *history, prompt, answer = row["messages"]
        asked, _, rest = prompt["content"].partition("\n")
        assert rest == end
        instruction, reply, complete = find_joint(answer["content"], "stop")
        assert complete
        conversation = [*history, {"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
        turns = examine(conversation)
        assert not turns[-1].right
        assert instruction != asked
        spoiled_before += any(not turn.right for turn in turns[:-1])
    assert spoiled_before > 50


def test_all_that_is_learnt_is_in_the_vocabulary(corpus, rows):
    known = set(vocabulary())
    texts = [message["content"] for row in corpus for message in row["messages"]]
    texts += [message["content"] for row in rows for side in ("chosen", "rejected") for message in row[side]]
    assert {token for text in texts for token in tokens(text)} <= known


def user_lists(conversation):
    for turn in examine(conversation):
        if turn.ask is not None:
            for source in (turn.ask.instruction.x, turn.ask.instruction.y):
                if source is not None and source.kind == "list":
                    yield source.value


def test_nothing_of_a_suite_is_trained_on(rows, corpus):
    plain = [row["messages"] for row in corpus if row["learn"] == "all"]
    trained = [*plain, *chain.from_iterable((row["chosen"], row["rejected"]) for row in rows)]
    suites = [pair for name in SUITES for pair in build(name, 100)]
    tested = [side for pair in suites for side in (pair.chosen, pair.rejected)]
    assert {split_of(one) for side in trained for one in user_lists(side)} == {"train"}
    assert {split_of(one) for side in tested for one in user_lists(side)} == {"suites"}
    assert {str(side) for side in trained}.isdisjoint(str(side) for side in tested)
    openings = {side[0]["content"] for side in trained}
    assert openings.isdisjoint(side[0]["content"] for side in tested)


def test_foreign_replies_stand_before_the_last_turn():
    rows = foreign_rows(60, 4)
    assert len(rows) == 60
    turns = Counter()
    for row in rows:
        assert wrong_turns(row["chosen"]) == []
        differing = [at for at in range(8) if row["chosen"][at] != row["rejected"][at]]
        turns[(differing[0] + 1) // 2] += 1
        assert len(differing) == 1
        assert (differing[0] + 1) // 2 in wrong_turns(row["rejected"])
    assert turns == {1: 20, 2: 20, 3: 20}


def test_first_messages_are_different_and_of_their_split():
    for part, split in (("prompts", "train"), ("best_of_n", "suites"), ("S2", "suites")):
        found = first_messages(part, 200)
        texts = {row["prompt"][0]["content"] for row in found}
        assert len(texts) == len({row["id"] for row in found}) == 200
        lists = {one for text in texts for one in user_lists([{"role": "user", "content": text}, _EMPTY])}
        assert {split_of(one) for one in lists} == {split}


_EMPTY = {"role": "assistant", "content": ""}
