"""The pool of user messages, and which of them is a similar but different request (TF-IDF).

LLMBar's Neighbor set is made the same way: a good answer to a neighbouring instruction is a bad
answer to this one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice

import numpy as np

from music_ray.schema import unit_interval

CANDIDATES = 3
"""One of so many nearest messages is drawn, so that one message does not answer for all its kin."""


class NeighbourPool:
    """User messages of D, indexed by TF-IDF over words and word pairs."""

    def __init__(self, messages: Sequence[str], max_similarity: float) -> None:
        """
        Args:
            messages: at least 2 different user messages.
            max_similarity: cosine at which two messages are the same request.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.messages = list(dict.fromkeys(messages))
        self.max_similarity = max_similarity
        try:
            self._vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", ngram_range=(1, 2))
            self._matrix = self._vectorizer.fit_transform(self.messages)
        except ValueError:  # none holds a word that counts, only "and you?" or signs: go by their letters
            self._vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer="char", ngram_range=(1, 3))
            self._matrix = self._vectorizer.fit_transform(self.messages)

    def draw(self, message: str, history: Collection[str], *key: object) -> str | None:
        """A similar but different message, or None when the pool has none.

        Args:
            message: the user message it is to stand in for.
            history: what the user of this conversation has asked: a reply to that would be no contrast.
            key: what the draw among the nearest goes by (run seed, seed id, turn, attempt).
        """
        similarity = (self._matrix @ self._vectorizer.transform([message]).T).toarray()[:, 0]
        possible = (
            int(index)
            for index in np.argsort(-similarity, kind="stable")
            if similarity[index] < self.max_similarity
            and self.messages[index] not in history
            and word_overlap(self.messages[index], message) < self.max_similarity
        )
        first = list(islice(possible, CANDIDATES))  # lazily: the pool is big, and few are looked at
        # Nothing in the pool shares a word with the message: then each is as good as another.
        nearest = [index for index in first if similarity[index] > 0] or [*first, *possible]
        if not nearest:
            return None
        return self.messages[nearest[int(unit_interval("neighbour", *key) * len(nearest))]]


def word_overlap(left: str, right: str) -> float:
    """Shared words over all words of two messages: near 1, they ask the same in other words."""
    one, other = (set(re.findall(r"\w+", text.lower())) for text in (left, right))
    return len(one & other) / len(one | other) if one | other else 0.0
