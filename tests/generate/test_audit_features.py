"""Surface features and markers, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.generate.audit.features import (
    COUNTS,
    FEATURES,
    compare_by,
    count_message,
    ngrams,
    num_words,
    sum_counts,
)
from music_ray.generate.audit.lexicon import PHRASES, count_phrases, fold
from music_ray.generate.audit.views import MAX_TURNS, VIEWS, branches, feature_names, surface
from music_ray.schema import PreferencePair
from tests.generate.audit_samples import say

MARKDOWN = """# Plan

1. First, *boil* it; then wait\u2026
2) **Stir** well (slowly): 5 minutes!

- salt
* pepper \u2014 or not?

| a | b |
```py
x = `y`
```
See [here](https://example.com)."""


def counted(text: str) -> dict[str, float]:
    return {name: number for name, number in zip(COUNTS, count_message(text).tolist(), strict=True) if number}


def test_counts_of_a_message_by_hand() -> None:
    found = counted(MARKDOWN)
    expected = {
        "messages": 1, "paragraphs": 4, "headings": 1, "numbered items": 2, "bullets": 2, "table rows": 1,
        "bold or italic": 2, "code fences": 2, "inline code": 1, "links": 2, "commas": 1, "semicolons": 1,
        "colons": 2, "exclamation marks": 1, "question marks": 1, "ellipses": 1, "dashes": 1, "digits": 3,
        "opening brackets": 2, "full stops": 3, "upper-case letters": 4,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert found["characters"] == len(MARKDOWN)
    assert not any("letters" in name for name in found if name not in ("letters", "upper-case letters"))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("  \n ", 0),
        ("One", 1),
        ("One. Two! Three? Four\u2026", 4),
        ("It costs 3.50 today. \u201cReally?\u201d she said", 3),
        ("A line\nanother line\n\na third.", 3),
        ("A.\n\nB.\nC", 3),
        ("漢字。 漢字\uff01", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert counted(text).get("sentences", 0) == sentences


def test_letters_by_script() -> None:
    found = counted("Été Привет Ωmega 漢字 かな שלום 한 ٣")
    scripts = {name: number for name, number in found.items() if name.endswith(" letters")}
    assert scripts == {
        "upper-case letters": 3, "LATIN letters": 2, "CYRILLIC letters": 6, "GREEK letters": 1,
        "CJK letters": 2, "HIRAGANA letters": 2, "HEBREW letters": 4, "HANGUL letters": 1,
    }  # fmt: skip
    assert (found["letters"], found["digits"]) == (23, 1)


def test_repetition_and_vocabulary() -> None:
    found = counted("the cat sat. The cat sat, the dog ran")
    assert (found["words"], found["distinct words"]) == (9, 5)
    assert (found["3-grams"], found["repeated 3-grams"]) == (7, 2)
    assert ngrams("A b, c a B c") == {("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")}
    assert ngrams("two words") == set()


def test_counts_enter_by_logarithm_and_shares_by_their_sum() -> None:
    counts = sum_counts([count_message("red green blue"), count_message("red")])
    features = dict(zip(FEATURES, compare_by(counts).tolist(), strict=True))
    assert num_words(counts) == 4
    assert features["words"] == pytest.approx(np.log(5))
    assert features["messages"] == pytest.approx(np.log(3))
    assert features["words per sentence"] == 2
    assert features["share of distinct words"] == 1
    nothing = compare_by(sum_counts([]))
    assert nothing.shape == (len(FEATURES),) and not nothing.any()


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_can_be_counted_and_counts_add_up(one: str, other: str) -> None:
    left, right = count_message(one), count_message(other)
    assert np.isfinite(left).all() and (left >= 0).all()
    together = sum_counts([left, right])
    assert np.array_equal(together, left + right)
    assert np.isfinite(compare_by(together)).all()


# -- markers ---------------------------------------------------------------------------------------

MARKED = {
    "complaints": [
        "That's not what I asked.", "That is not really what I meant", "You didn't answer my question!",
        "You still haven\u2019t addressed it", "I asked for a recipe, not a story.",
        "This is completely wrong",
        "you misunderstood me", "I was asking about cats", "That doesn't make any sense",
        "What does that have to do with it?", "Please just answer the question",
    ],
    "self-corrections": [
        "I apologize for the confusion.", "Sorry, I misunderstood your question.", "You're absolutely right!",
        "My mistake.", "Sorry for my previous mistake", "I must have misread it.", "Let me rephrase that.",
        "Thank you for pointing that out", "I stand corrected",
    ],
    "refusals": [
        "I can't help with that.", "I\u2019m sorry, but I can\u2019t do that", "As an AI, I have no body.",
        "I am not able to say", "I won't provide this", "That is against my guidelines",
        "I'm just an AI language model",
    ],
    "apologies": ["Sorry!", "I apologise", "My apologies"],
    "openers": ["Sure! Here", "Of course.", "**Certainly**, yes"],
    "thanks": ["Thanks a lot", "thank\nyou"],
}  # fmt: skip
UNMARKED = {
    "complaints": [
        "What should I cook?", "I like it. Why is it so?", "Can you explain how to bake bread?",
        "Thanks, that was right.", "Is this right for me?",
    ],
    "self-corrections": ["You write well.", "Let me explain.", "Sorry to hear that.", "A mistake."],
    "refusals": ["You can't do it alone.", "I can help.", "I will not be long."],
    "apologies": ["A sorrowful tale"],
    "openers": ["Is it so? Sure.", "Greater numbers"],
    "thanks": ["thankful"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in MARKED for text in MARKED[name]])
def test_phrases_that_are_meant(name: str, text: str) -> None:
    assert count_phrases(fold(text), name) >= 1


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in UNMARKED for text in UNMARKED[name]])
def test_phrases_that_are_not(name: str, text: str) -> None:
    assert count_phrases(fold(text), name) == 0


def test_every_kind_of_phrase_is_tested() -> None:
    assert set(MARKED) == set(UNMARKED) == set(PHRASES)


# -- views -----------------------------------------------------------------------------------------


def make_pair(chosen: tuple[str, ...], rejected: tuple[str, ...]) -> PreferencePair:
    return PreferencePair("a", "s", "D_MUSIC", 1, 3, 1, say(*chosen), say(*rejected))


def test_views_show_the_part_in_which_the_sides_differ() -> None:
    start = ("Q?", "Shared.", "And?")
    pair = make_pair((*start, "c1", "cu", "c2"), (*start, "r1", "ru", "r2"))
    chosen, rejected = branches(pair)
    shown = {view: (chosen.texts_of(view), rejected.texts_of(view)) for view in VIEWS}
    assert shown == {
        "whole": (["c1", "cu", "c2"], ["r1", "ru", "r2"]),
        "user": (["cu"], ["ru"]),
        "last_reply": (["c2"], ["r2"]),
        "first_reply": (["c1"], ["r1"]),
    }
    assert [len(turn) for turn in chosen.turns] == [1, 2]


def test_a_pair_that_parts_at_a_user_message_and_one_that_does_not_part() -> None:
    chosen, rejected = branches(make_pair(("Q?", "A.", "u1", "c1"), ("Q?", "A.", "u2", "c1")))
    assert (chosen.texts_of("whole"), rejected.texts_of("user")) == (["u1", "c1"], ["u2"])
    same, other = branches(make_pair(("Q?", "A."), ("Q?", "A.")))
    assert same.turns == other.turns == []
    for view in VIEWS:
        assert surface(same, view).shape == (len(feature_names(view)),)
        assert not surface(same, view).any()


def test_lengths_by_turn_growth_and_repetition() -> None:
    pair = make_pair(("Q?", "a b c", "d", "a b c e f g h", "i j", "k"), ("Q?", "x", "d", "y", "z", "w"))
    chosen, _ = branches(pair)
    features = dict(zip(feature_names("whole"), surface(chosen, "whole").tolist(), strict=True))
    logs = [np.log1p(number) for number in (3, 7, 1)]
    assert [features[f"replies: words in turn {turn}"] for turn in (1, 2, 3)] == pytest.approx(logs)
    assert [features[f"user: words in turn {turn}"] for turn in (1, 2, 3)] == pytest.approx(
        [0, np.log1p(1), np.log1p(2)]
    )
    assert features[f"replies: words in turn {MAX_TURNS}"] == 0
    assert features["replies: growth in words from turn to turn"] == pytest.approx((logs[2] - logs[0]) / 2)
    assert features["replies: change in words from turn to turn"] == pytest.approx(
        (logs[1] - logs[0] + logs[1] - logs[2]) / 2
    )
    assert features["replies: share of 3-grams said before"] == pytest.approx(1 / 5)


def test_more_turns_than_have_features_of_their_own() -> None:
    texts = tuple(f"text number {index}" for index in range(4 * MAX_TURNS))
    chosen, rejected = branches(make_pair(texts, (texts[0], "other")))
    assert surface(chosen, "whole").shape == surface(rejected, "whole").shape
