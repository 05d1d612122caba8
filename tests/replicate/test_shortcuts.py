"""What counting finds where something was planted, and that it finds nothing where nothing is."""

from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.miniature.language import vocabulary
from music_ray.miniature.place import spoil
from music_ray.miniature.preferences import write_rows
from music_ray.miniature.suites import build
from music_ray.miniature.world import conversation
from music_ray.replicate.scoring import suite_facts
from music_ray.replicate.shortcuts import VIEWS, auc, lengths, likeness_features, shortcuts, user_features
from music_ray.schema import Message

NOTHING = {"lengths": 0.5, "replies": 0.5, "likeness": 0.5, "users": 0.5}
Side = list[Message]


def talk(*texts: str) -> Side:
    """Messages of a conversation, the user's first."""
    speakers = cycle(("user", "assistant"))
    return [{"role": role, "content": text} for role, text in zip(speakers, texts, strict=False)]


def suite(folder: Path, sides: list[tuple[Side, Side]]) -> Path:
    file = folder / "suite.parquet"
    write_rows([{"chosen": chosen, "rejected": rejected} for chosen, rejected in sides], file)
    return file


@pytest.mark.parametrize("more", ["a b c", "a b c d e"])
def test_one_token_more_or_less_in_every_pair_is_found(tmp_path: Path, more: str) -> None:
    """Also where every pair differs by the same, so that no feature varies between pairs."""
    sides = [(talk("Sort it.", more), talk("Sort it.", "a b c d"))] * 8
    found = shortcuts(suite(tmp_path, sides), np.arange(8))
    assert found == {"lengths": 1.0, "replies": 1.0, "likeness": 1.0, "users": 0.5}


def test_users_who_say_something_else_are_found(tmp_path: Path) -> None:
    good, bad = (talk("Sort d b.", "b d", f"{mood} Reverse it.", "d b") for mood in ("Good.", "No."))
    assert shortcuts(suite(tmp_path, [(good, bad)] * 8), np.arange(8)) == NOTHING | {"users": 1.0}


def test_sides_of_one_content_are_a_coin(tmp_path: Path) -> None:
    side = talk("Sort d b.", "b d")
    assert shortcuts(suite(tmp_path, [(side, side)] * 8), np.arange(8)) == NOTHING


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 3)), min_size=4, max_size=12, unique=True))
def test_mirrored_pairs_of_one_cluster_are_exactly_a_coin(places: list[tuple[int, int]]) -> None:
    pairs = [(whole, spoil(whole, turn, "c")) for seed, turn in places for whole in [conversation(seed, 3)]]
    mirrored = [pair for one, other in pairs for pair in ((one, other), (other, one))]
    clusters = np.repeat(np.arange(len(pairs)), 2)
    assert {name: auc(mirrored, view, clusters) for name, view in VIEWS.items()} == NOTHING


def test_a_contradiction_is_seen_in_how_like_each_other_replies_are_and_in_no_reply_by_itself() -> None:
    sides, clusters = [], []
    for number, (one, other) in enumerate(zip("abcdefgh", "bcdefghi", strict=True)):
        for first, second in ((one, other), (other, one)):
            sides.append((talk("?", first, "?", first), talk("?", first, "?", second)))
            clusters.append(number)
    found = {name: auc(sides, view, clusters) for name, view in VIEWS.items()}
    assert found == NOTHING | {"likeness": 1.0}


def test_what_is_learnt_of_a_cluster_is_not_asked_of_it() -> None:
    """Each cluster has words of its own, which tell its pairs apart and no others."""
    words = [word for word in vocabulary() if word.isalpha()]
    pairs = [(talk(good, "a"), talk(bad, "a")) for good, bad in zip(words[:8], words[8:16], strict=True)]
    sides = [pair for pair in pairs for _ in range(4)]
    assert auc(sides, user_features, np.arange(32) // 4) == 0.5
    assert auc(sides, user_features, np.arange(32)) == 1.0


def test_it_is_a_share_of_pairs() -> None:
    """Three pairs in four have the longer side chosen: as a reward model's accuracy, so this is 0.75."""
    short, long = talk("?", "a b"), talk("?", "a b c")
    sides = list(islice(cycle([(long, short), (long, short), (long, short), (short, long)]), 40))
    assert auc(sides, lengths, np.arange(40) // 4) == 0.75


def test_of_a_larger_suite_whole_clusters_are_looked_at(tmp_path: Path) -> None:
    """Mirrored pairs stay mirrored only if no cluster is torn: 15 pairs of clusters of 2 are 14."""
    pairs = [(whole, spoil(whole, 1, "c")) for whole in (conversation(seed, 3) for seed in range(20))]
    mirrored = [pair for one, other in pairs for pair in ((one, other), (other, one))]
    file = suite(tmp_path, mirrored)
    clusters = np.repeat(np.arange(20), 2)
    assert shortcuts(file, clusters, max_pairs=15) == NOTHING
    with pytest.raises(ValueError, match="there is 0"):
        shortcuts(file, clusters, max_pairs=1)


def test_words_of_no_vocabulary_and_empty_replies_are_counted() -> None:
    """A language model's samples hold whatever it says."""
    sides = [(talk("Sort b a.", "", "Hello.", "99 zebras"), talk("Sort b a.", "a b", "Hello.", "!"))] * 6
    found = {name: auc(sides, view, range(6)) for name, view in VIEWS.items()}
    assert found == {"lengths": 1.0, "replies": 1.0, "likeness": 1.0, "users": 0.5}
    assert len({len(likeness_features(side)) for pair in sides for side in pair}) == 1


def test_a_suite_with_its_own_clusters(tmp_path: Path) -> None:
    file = tmp_path / "S6.parquet"
    write_rows([pair.row() for pair in build("S6", 60)], file)
    assert shortcuts(file, suite_facts(file).clusters) == NOTHING | {"users": 1.0}


def test_clusters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = suite(tmp_path, [(talk("?", "a"), talk("?", "b"))] * 3)
    with pytest.raises(ValueError, match=r"suite\.parquet has 3 rows, but there are clusters of 2"):
        shortcuts(file, np.arange(2))
    with pytest.raises(
        ValueError, match="weights are learnt on some clusters and tested on others: there is 1"
    ):
        shortcuts(file, np.zeros(3, dtype=int))
