"""Preference pairs from a generator of nonsense, for the tests of the shortcut audit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from music_ray.config import AuditConfig
from music_ray.schema import Message, PreferencePair

CONFIG = AuditConfig(bootstrap_samples=100)
Edit = Callable[[list[str], random.Random], list[str]]

_VOWELS, _CONSONANTS = "aeiou", "bdfgklmnprst"
_WORDS = [
    first + vowel + last + end
    for first in _CONSONANTS
    for vowel in _VOWELS
    for last in "mnrt"
    for end in ("", "a", "o")
]


def nonsense(rng: random.Random, num_words: int) -> list[str]:
    """Sentences of four to nine words, as a list of words."""
    words: list[str] = []
    while len(words) < num_words:
        sentence = [rng.choice(_WORDS) for _ in range(rng.randint(4, 9))]
        words += [sentence[0].capitalize(), *sentence[1:-1], sentence[-1] + "."]
    return words[:num_words]


def say(*texts: str) -> list[Message]:
    """Messages that begin with the user's and alternate."""
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


def keep(words: list[str], rng: random.Random) -> list[str]:
    """Changes nothing."""
    return words


def make_pairs(
    number: int,
    seed: int,
    *,
    turns: int = 2,
    rejected_reply: Edit = keep,
    rejected_user: Edit = keep,
    conversations: int | None = None,
) -> list[PreferencePair]:
    """Pairs whose sides come from one generator, the rejected one with edits."""
    rng = random.Random(seed)
    pairs = []
    for index in range(number):
        first = " ".join(nonsense(rng, 8))
        sides = []
        for edit_reply, edit_user in ((keep, keep), (rejected_reply, rejected_user)):
            texts = [first]
            for turn in range(turns):
                if turn:
                    texts.append(" ".join(edit_user(nonsense(rng, rng.randint(5, 12)), rng)))
                texts.append(" ".join(edit_reply(nonsense(rng, rng.randint(25, 45)), rng)))
            sides.append(say(*texts))
        pairs.append(
            PreferencePair(
                id=f"music-{index}",
                source="nonsense",
                origin="D_MUSIC",
                conversation=index % (conversations or number),
                num_turns=turns,
                branch_turn=1,
                chosen=sides[0],
                rejected=sides[1],
                seed_id=index,
            )
        )
    return pairs


def swapped(pairs: list[PreferencePair]) -> list[PreferencePair]:
    """The same pairs with the labels the wrong way round."""
    return [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]
