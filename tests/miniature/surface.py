"""What can be counted on a side without checking a reply, and the best linear use of it (numpy alone)."""

from itertools import pairwise

import numpy as np

from music_ray.miniature.language import tokens as split
from music_ray.miniature.language import vocabulary
from music_ray.miniature.suites import replies

WORDS = {word: number for number, word in enumerate(vocabulary())}


def lengths(messages):
    """Lengths of the replies, in all, of the last, squared, and in characters."""
    counts = [len(split(reply)) for reply in replies(messages)]
    total = sum(counts)
    characters = sum(map(len, replies(messages)))
    return [total, total**2, np.log(total), counts[-1], max(counts), min(counts), characters]


def reply_features(messages):
    """Of each reply by itself, summed: tokens of each kind, length, order, repetition, case, marks."""
    texts = replies(messages)
    letters = ["".join(token for token in split(text) if token.isalpha()) for text in texts]
    steps = [ord(b) - ord(a) for text in letters for a, b in pairwise(text)]
    bag = np.zeros(len(WORDS))
    for text in texts:
        for token in split(text):
            bag[WORDS[token]] += 1
    shape = [
        sum(step > 0 for step in steps),
        sum(step == 0 for step in steps),
        sum(step == 1 for step in steps),
        sum(len(set(text.lower())) for text in letters),
        sum(text.endswith("!") for text in texts),
        sum(text.isupper() for text in letters),
    ]
    return [*lengths(messages), *shape, *bag]


def likeness_features(messages):
    """As reply_features, and how like each other the replies of a side are, in letters and in style."""
    texts = replies(messages)
    letters = ["".join(token for token in split(text) if token.isalpha()).lower() for text in texts]
    both = [pair for pair in pairwise(letters) if all(pair)]
    return [
        *reply_features(messages),
        sum(a == b for a, b in both),
        sum(set(a) == set(b) for a, b in both),
        sum(sorted(a) == sorted(b) for a, b in both),
        sum(abs(len(a) - len(b)) for a, b in both),
        len(set(letters)),
        len(set("".join(letters))),
        len({text.isupper() for text in texts if text.upper() != text.lower()}),
        len({text.endswith("!") for text in texts}),
    ]


def user_features(messages):
    """Words of the user messages."""
    bag = np.zeros(len(WORDS))
    for message in messages[::2]:
        for token in split(message["content"]):
            bag[WORDS[token]] += 1
    return list(bag)


def auc(pairs, features, folds=4):
    """How well features order unseen pairs: 0.5 is a coin. Pairs of one seed stay in one fold."""
    differences = np.array(
        [np.subtract(features(pair.chosen), features(pair.rejected)) for pair in pairs], dtype=float
    )
    used = differences.std(axis=0) > 0
    if not used.any():
        return 0.5
    differences = differences[:, used] / differences[:, used].std(axis=0)
    fold = np.array([pair.seed for pair in pairs]) // 7 % folds
    margins = np.concatenate(
        [differences[fold == held] @ _logistic(differences[fold != held]) for held in range(folds)]
    )
    return float((margins > 1e-9).mean() + 0.5 * (np.abs(margins) <= 1e-9).mean())


def _logistic(differences, ridge=1.0, steps=6):
    """Weights of a logistic regression without intercept, every row's label being 1, by Newton's method."""
    weights = np.zeros(differences.shape[1])
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(differences @ weights, -30, 30)))
        gradient = differences.T @ (1 - probability) - ridge * weights
        curvature = (differences * (probability * (1 - probability))[:, None]).T @ differences
        weights += np.linalg.solve(curvature + ridge * np.eye(len(weights)), gradient)
    return weights
