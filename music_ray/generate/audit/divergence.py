"""How far the two branches come apart, turn by turn, and what each says that the other does not.

Words and shares only: it measures the branches and judges nothing.
"""

from __future__ import annotations

import numpy as np

from music_ray.generate.audit.corpus import Corpus
from music_ray.generate.audit.features import has, words_of
from music_ray.generate.audit.result import Likeness, Marker, Rate, Turn
from music_ray.generate.audit.terms import cosines
from music_ray.generate.audit.views import Branch

_MARKERS = (
    ("self-corrections", "assistant"),
    ("apologies", "assistant"),
    ("refusals", "assistant"),
    ("complaints", "user"),
    ("thanks", "user"),
)


class MarkerCounts:
    """Messages with self-corrections, complaints and the like, counted for each side."""

    def __init__(self) -> None:
        self._counts = np.zeros((len(_MARKERS), 2, 2), dtype=int)  # marker, side, (messages, with it)

    def add(self, chosen: Branch, rejected: Branch) -> None:
        """Counts one pair."""
        for index, (name, role) in enumerate(_MARKERS):
            holds = has(name)
            for side, branch in enumerate((chosen, rejected)):
                counts = branch.counts_of("user" if role == "user" else "replies")
                self._counts[index, side] += len(counts), sum(map(holds, counts))

    def markers(self) -> list[Marker]:
        """What was counted."""
        return [
            Marker(name, role, *(Rate(int(messages), int(found)) for messages, found in sides))
            for (name, role), sides in zip(_MARKERS, self._counts, strict=True)
        ]


def compare_turns(corpus: Corpus, max_turns: int) -> list[Turn]:
    """Likeness of the branches at each of the first turns from the one in which they part."""
    places = {key: _likeness(corpus, numbers) for key, numbers in corpus.by_turn(max_turns).items()}
    return [
        Turn(turn, places.get((turn, "user")), places.get((turn, "assistant")))
        for turn in sorted({turn for turn, _ in places})
    ]


def _likeness(corpus: Corpus, numbers: list[tuple[int, int]]) -> Likeness:
    texts = [(corpus.texts[left], corpus.texts[right]) for left, right in numbers]
    equal = np.array([left.strip() == right.strip() for left, right in texts])
    overlap = np.array([_overlap(left, right) for left, right in texts])
    vectors = corpus.terms.vectors([[left] for left, _ in numbers], [[right] for _, right in numbers])
    cosine = np.where(equal, 1.0, cosines(*vectors))
    return Likeness(len(texts), *(round(float(values.mean()), 4) for values in (equal, overlap, cosine)))


def _overlap(left: str, right: str) -> float:
    """Shared distinct words over all distinct words; 1 for two texts without words."""
    one, other = set(words_of(left)), set(words_of(right))
    return len(one & other) / len(one | other) if one | other else 1.0
