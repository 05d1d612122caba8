"""Messages as counts of their words and pairs of words, and views of them as TF-IDF vectors.

Each message is split into words once; every view is a sum of messages. The vocabulary and the weights
are learnt from both sides alike, without a look at which is which, so they can't give the label away.
This module knows texts and their places; it does not know what a view is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from music_ray.generate.audit.features import WORD

MAX_TERMS = 20_000
_LEARN_FROM = 8_000
"""Messages that the vocabulary is learnt from: one of all messages might not fit in memory."""


class Terms:
    """Counts of terms in messages, [m, t]."""

    def __init__(self, messages: Sequence[str]) -> None:
        """Splits the messages; those of a pair's two sides should stand near each other."""
        from scipy import sparse
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(
            ngram_range=(1, 2),
            max_features=MAX_TERMS,
            token_pattern=WORD.pattern,
            dtype=np.float32,
        )
        try:
            learnt = vectorizer.fit_transform(messages[:_LEARN_FROM])
        except ValueError as error:  # scikit-learn's way to say that no message has a word
            if "empty vocabulary" not in str(error):
                raise
            self.names: list[str] = []
            self._counts = sparse.csr_matrix((len(messages), 0), dtype=np.float32)
            return
        self.names = [str(name) for name in vectorizer.get_feature_names_out()]
        rest = messages[_LEARN_FROM:]
        self._counts = sparse.vstack([learnt, vectorizer.transform(rest)]).tocsr() if rest else learnt

    def vectors(self, *sides: Sequence[Sequence[int]]) -> list[Any]:
        """TF-IDF vectors, scipy-sparse, a matrix [n, t] a side; each row is a sum of messages.

        Vectors have length 1: a long text weighs no more than a short one.

        Args:
            sides: of each row the numbers of its messages; weights are learnt from all sides together.
        """
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfTransformer

        if not self.names:
            return [sparse.csr_matrix((len(side), 0)) for side in sides]
        sums = [self._sum(side) for side in sides]
        weigh = TfidfTransformer(sublinear_tf=True).fit(sparse.vstack(sums))
        return [weigh.transform(one).tocsr() for one in sums]

    def _sum(self, rows: Sequence[Sequence[int]]) -> Any:
        from scipy import sparse

        starts = np.cumsum([0, *map(len, rows)])
        columns = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(starts[-1]))
        ones = np.ones(len(columns), dtype=np.float32)
        shape = (len(rows), self._counts.shape[0])
        return sparse.csr_matrix((ones, columns, starts), shape=shape) @ self._counts


def cosines(left: Any, right: Any) -> np.ndarray:
    """Cosine of each vector with its counterpart, [n]; 0 where one has no known word."""
    return np.asarray(left.multiply(right).sum(axis=1)).reshape(-1).astype(float)
