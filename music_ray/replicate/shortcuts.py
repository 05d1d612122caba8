"""What can be counted in a suite's pairs without checking a reply, and how well that tells the sides apart.

    lengths    tokens and characters of the replies
    replies    those, and what each reply holds by itself: words, order, repetition, case, marks
    likeness   those, and how like each other a side's replies are
    users      words of the user messages

This module knows texts and clusters; it does not know which reply is right, nor any reward model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from music_ray.miniature.language import tokens, vocabulary
from music_ray.miniature.suites import replies
from music_ray.miniature.world import read_letters
from music_ray.schema import Message

Features = Callable[[Sequence[Message]], list[float]]
"""Numbers of one side; as many for every side."""
MAX_PAIRS = 5_000
FOLDS = 4
_WORDS = vocabulary()
_NOTHING = 1e-9
"""A pair whose sides' scores differ by less is a tie."""


def shortcuts(file: Path, clusters: np.ndarray, *, max_pairs: int = MAX_PAIRS) -> dict[str, float]:
    """The AUC of what can be counted in a suite, for each of VIEWS: 0.5 is a coin.

    Args:
        file: a suite's Parquet file, with the columns chosen and rejected.
        clusters: the cluster of each row, [n] (SuiteFacts.clusters).
        max_pairs: of a larger suite so many at most are looked at, drawn by whole clusters, always the same.

    Raises:
        ValueError: not one cluster for each row, or fewer than two clusters.
    """
    rows = pq.read_table(file, columns=["chosen", "rejected"]).to_pylist()
    if len(rows) != len(clusters):
        raise ValueError(f"{file} has {len(rows)} rows, but there are clusters of {len(clusters)}")
    kept = _whole_clusters(clusters, max_pairs)
    sides = [(rows[at]["chosen"], rows[at]["rejected"]) for at in kept]
    return {name: auc(sides, features, clusters[kept]) for name, features in VIEWS.items()}


def auc(
    sides: Sequence[tuple[Sequence[Message], Sequence[Message]]],
    features: Features,
    clusters: Sequence[int] | np.ndarray,
) -> float:
    """The share of unseen pairs whose chosen side gets the higher score; a tie is half a pair.

    So it can be held against a reward model's accuracy on the same pairs. Scores are linear in the features;
    their weights come from the pairs of other clusters alone, by logistic regression of the differences
    between the sides.

    Args:
        sides: chosen and rejected of each pair.
        clusters: the cluster of each pair, [n].

    Raises:
        ValueError: fewer than two clusters.
    """
    from sklearn.model_selection import GroupKFold
    from threadpoolctl import threadpool_limits

    num_clusters = len(np.unique(clusters))
    if num_clusters < 2:
        raise ValueError(f"weights are learnt on some clusters and tested on others: there is {num_clusters}")
    differences = np.array([np.subtract(features(one), features(other)) for one, other in sides])  # [n, f]
    folds = GroupKFold(min(FOLDS, num_clusters), shuffle=True, random_state=0)
    margins = np.zeros(len(sides))
    with threadpool_limits(1):  # such small fits gain nothing by more
        for seen, unseen in folds.split(differences, groups=clusters):
            margins[unseen] = differences[unseen] @ _weights(differences[seen])
    return float((margins > _NOTHING).mean() + (np.abs(margins) <= _NOTHING).mean() / 2)


def _weights(differences: np.ndarray) -> np.ndarray:
    """Weights that score the chosen sides above the rejected ones, [f]; 0 where the sides never differ."""
    from sklearn.linear_model import LogisticRegression

    # Not the standard deviation: chosen may have one token more in every pair.
    scale = np.sqrt((differences**2).mean(axis=0))
    weights = np.zeros(differences.shape[1])
    used = scale > 0
    if used.any():
        rows = differences[:, used] / scale[used]
        # Each pair in both orders, because two classes are wanted; at half the strength that changes nothing.
        model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-6, max_iter=500)
        model.fit(np.concatenate([rows, -rows]), np.repeat([1, 0], len(rows)))
        weights[used] = model.coef_[0] / scale[used]
    return weights


def _whole_clusters(clusters: np.ndarray, max_pairs: int) -> np.ndarray:
    """Places of at most so many pairs, in order; of a cluster all or none, for mirrored pairs are in one."""
    names, of_pair, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(0).permutation(len(names)) if len(clusters) > max_pairs else names.argsort()
    taken = drawn[np.cumsum(sizes[drawn]) <= max_pairs]
    return np.flatnonzero(np.isin(of_pair, taken))


# -- what is counted of one side --


def lengths(messages: Sequence[Message]) -> list[float]:
    """Tokens of the replies: of all, of the last, of the longest and the shortest; and characters."""
    said = replies(messages)
    counts = [len(tokens(reply)) for reply in said]
    total = sum(counts)
    return [
        total,
        total**2,
        math.log1p(total),
        counts[-1],
        max(counts),
        min(counts),
        sum(map(len, said)),
    ]


def reply_features(messages: Sequence[Message]) -> list[float]:
    """Lengths, and of each reply by itself, summed: words, steps between letters, repetition, case, marks."""
    said = replies(messages)
    letters = [read_letters(reply) for reply in said]
    steps = [ord(after) - ord(before) for text in letters for before, after in pairwise(text)]
    return [
        *lengths(messages),
        sum(step > 0 for step in steps),
        sum(step == 0 for step in steps),
        sum(step == 1 for step in steps),
        sum(len(set(text)) for text in letters),
        sum(reply.endswith("!") for reply in said),
        sum(reply.isupper() for reply in said),
        *_words(said),
    ]


def likeness_features(messages: Sequence[Message]) -> list[float]:
    """As reply_features, and how like each other the replies are, in letters, length and style."""
    said = replies(messages)
    letters = [read_letters(reply) for reply in said]
    both = [pair for pair in pairwise(letters) if all(pair)]
    return [
        *reply_features(messages),
        sum(one == other for one, other in both),
        sum(set(one) == set(other) for one, other in both),
        sum(sorted(one) == sorted(other) for one, other in both),
        sum(abs(len(one) - len(other)) for one, other in both),
        len(set(letters)),
        len(set("".join(letters))),
        len({reply.isupper() for reply in said if reply.upper() != reply.lower()}),
        len({reply.endswith("!") for reply in said}),
    ]


def user_features(messages: Sequence[Message]) -> list[float]:
    """Words of the user messages."""
    return _words([message["content"] for message in messages if message["role"] == "user"])


def _words(texts: Sequence[str]) -> list[float]:
    """How often each word of the language comes, and how often any other."""
    found: Counter[Any] = Counter(token for text in texts for token in tokens(text))
    known = [found[word] for word in _WORDS]
    return [*known, found.total() - sum(known)]


VIEWS: dict[str, Features] = {
    "lengths": lengths,
    "replies": reply_features,
    "likeness": likeness_features,
    "users": user_features,
}
"""The columns of the table in docs/explanation/miniature.md."""
