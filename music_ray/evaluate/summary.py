"""What is said of models on pair sets, put together: accuracies, comparisons, agreement, RewardBench.

Knows which numbers belong together, not how they are computed and not files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from music_ray.evaluate.accuracy import PairFacts, accuracy_by
from music_ray.evaluate.agreement import agreement, agreement_by_turn
from music_ray.evaluate.comparison import compare_by
from music_ray.evaluate.pair_sets import PairSet
from music_ray.evaluate.rewardbench import is_known, rewardbench
from music_ray.evaluate.sides import Scored
from music_ray.evaluate.stats import Resampling
from music_ray.evaluate.verdicts import Judged
from music_ray.public import public_place


@dataclass(frozen=True)
class Suite:
    """A pair set with its facts, computed once, and the verdicts on its pairs."""

    pairs: PairSet
    facts: PairFacts
    judged: list[Judged]


@dataclass(frozen=True)
class Found:
    """Scores of one model on one pair set."""

    whole: Scored
    turns: Scored | None
    """Of the conversations that verdicts on single turns are on, in their order."""


def summarise(suite: Suite, found: dict[str, Found], resampling: Resampling) -> dict[str, Any]:
    """All that is computed on one pair set.

    Args:
        found: by the model's name.
    """
    return {
        "name": suite.pairs.name,
        "place": public_place(suite.pairs.place),
        "content": next(iter(found.values())).whole.content,
        "num_pairs": len(suite.pairs.pairs),
        "num_contexts": len(np.unique(suite.facts.contexts)),
        "set_aside": dict(suite.pairs.set_aside),
        "length_unit": "tokens",
        "models": {name: _of_model(suite, one, resampling) for name, one in found.items()},
        "comparisons": [
            {"first": one, "second": other}
            | compare_by(found[one].whole.scores, found[other].whole.scores, suite.facts, resampling)
            for one, other in combinations(found, 2)
        ],
    }


def _of_model(suite: Suite, found: Found, resampling: Resampling) -> dict[str, Any]:
    whole = found.whole
    return {
        "unscored_reasons": whole.counts(),
        **accuracy_by(whole.scores, suite.facts, whole.num_tokens, resampling),
        "agreement": _agreement(suite, found, resampling),
    }


def _agreement(suite: Suite, found: Found, resampling: Resampling) -> dict[str, Any] | None:
    """With the judge; None where it said nothing of this set."""
    contexts = suite.facts.contexts
    result: dict[str, Any] = {}
    whole = [one for one in suite.judged if one.turn is None]
    if whole:
        at = np.array([one.index for one in whole])
        outcomes = np.array([one.outcome for one in whole])
        result["whole"] = agreement(
            found.whole.scores[at], outcomes, contexts[at], found.whole.num_tokens[at], resampling
        )
    if found.turns is not None:
        single = [one for one in suite.judged if one.turn is not None]
        result["by_turn"] = agreement_by_turn(
            found.turns.scores,
            np.array([one.outcome for one in single]),
            np.array([one.turn for one in single]),
            contexts[np.array([one.index for one in single])],
            found.turns.num_tokens,
            resampling,
        )
    return result or None


def rewardbench_of(suites: list[Suite], found: list[Found], resampling: Resampling) -> dict[str, Any] | None:
    """Over all sets together: the prior sets are published apart. None where no set is part of it."""
    subsets = np.concatenate([one.pairs.subsets() for one in suites])
    if not is_known(subsets):
        return None
    there = subsets != ""
    scores = np.concatenate([one.whole.scores for one in found])
    contexts = np.concatenate([one.facts.contexts for one in suites])
    lengths = np.concatenate([one.whole.num_tokens for one in found])
    return rewardbench(subsets[there], scores[there], contexts[there], lengths[there], resampling)
