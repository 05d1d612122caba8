"""The gate eval_overlap: a pair that shares a run of words with an evaluation set.

Looks at the whole conversation, the seed's messages included: prompts of D are what leaks. It does not
know where the sets come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import runs, shorten, words
from music_ray.generate.gates.eval_sets import SHORTEST, EvalSet
from music_ray.schema import Rollout

_NGRAM_SHOWN = 200


class EvalOverlap:
    """The gate, with the evaluation sets that it compares with; it counts pairs by set as it goes."""

    def __init__(self, gates: GatesConfig, sets: list[EvalSet]) -> None:
        self.ngram = gates.eval_ngram
        self.sets = sets
        self.pairs: Counter[str] = Counter({one.name: 0 for one in sets})
        """How many of the rollouts looked at overlap with each set."""

    def __call__(self, rollout: Rollout) -> str:
        found = self.overlaps(rollout)
        self.pairs.update(found.keys())
        return "; ".join(found.values())

    def overlaps(self, rollout: Rollout) -> dict[str, str]:
        """The sets that the rollout overlaps with, each with the first place and words."""
        found: dict[str, str] = {}
        for where, text in _messages(rollout):
            listed = words(text)
            grams = runs(listed, self.ngram)
            hashes = list(map(hash, grams))
            for one in self.sets:
                if one.name in found:
                    continue
                if not one.ngrams.isdisjoint(hashes):
                    first = next(gram for gram, key in zip(grams, hashes, strict=True) if key in one.ngrams)
                    found[one.name] = self._detail(where, one, " ".join(first))
                elif SHORTEST <= len(listed) < self.ngram and hash(tuple(listed)) in one.whole:
                    found[one.name] = (
                        f"{where} is a text of the evaluation set {one.name}: {' '.join(listed)!r}"
                    )
        return found

    def _detail(self, where: str, one: EvalSet, gram: str) -> str:
        return (
            f"{where} shares {self.ngram} words with the evaluation set {one.name}: "
            f"{shorten(gram, _NGRAM_SHOWN)!r}"
        )


def _messages(rollout: Rollout) -> Iterator[tuple[str, str]]:
    """Every message of both sides with its place; what the sides share comes once."""
    for index, message in enumerate(rollout.chosen):
        part = "seed" if index < len(rollout.context) else "chosen"
        yield f"message {index + 1} ({part})", message["content"]
    for index, message in enumerate(rollout.rejected):
        if index >= len(rollout.chosen) or message != rollout.chosen[index]:
            yield f"message {index + 1} (rejected)", message["content"]
