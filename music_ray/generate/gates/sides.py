"""The gates that compare the two sides of one rollout: equal, alike, or one far longer than the other."""

from __future__ import annotations

from collections.abc import Iterator

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import generated, runs, words
from music_ray.schema import Message, Rollout

SHINGLE_WORDS = 3
"""Length of the word runs by which texts are compared."""


def branches_equal(rollout: Rollout, gates: GatesConfig) -> str:
    """Sides that are the same, or a contrasted reply that is."""
    if rollout.chosen == rollout.rejected:
        return "chosen and rejected hold the same messages"
    for turn, chosen, rejected in _contrasted(rollout):
        if chosen.strip() == rejected.strip():
            return f"the contrasted reply of turn {turn} equals the chosen one"
    return ""


def branches_alike(rollout: Rollout, gates: GatesConfig) -> str:
    """Sides that say nearly the same from where they part, or a contrasted reply that does."""
    if rollout.chosen == rollout.rejected:
        return "chosen and rejected hold the same messages"
    bound = gates.branches_alike_similarity
    parting = _parting(rollout)
    alike = similarity(_text(rollout.chosen[parting:]), _text(rollout.rejected[parting:]))
    if alike >= bound:
        return f"from where they part, chosen and rejected are {alike:.2f} alike"
    for turn, chosen, rejected in _contrasted(rollout):
        alike = similarity(chosen, rejected)
        if alike >= bound:
            return f"the contrasted reply of turn {turn} is {alike:.2f} like the chosen one"
    return ""


def length_ratio(rollout: Rollout, gates: GatesConfig) -> str:
    """One side's generated text so much longer than the other's that length gives the label away."""
    lengths = {"chosen": 0, "rejected": 0}
    for message in generated(rollout):
        lengths[message.branch] += len(message.text)
    chosen, rejected = lengths.values()
    if max(chosen, rejected) <= gates.max_length_ratio * min(chosen, rejected):
        return ""
    return (
        f"{chosen} generated characters in chosen, {rejected} in rejected: one is more than "
        f"{gates.max_length_ratio:g} times the other"
    )


def shingles(text: str) -> set[tuple[str, ...]]:
    """The text's runs of three words; all its words as one run where there are fewer, none without any."""
    listed = words(text)
    return set(runs(listed, SHINGLE_WORDS)) or ({tuple(listed)} if listed else set())


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of two texts' shingles, shared over all, from 0 to 1; 0 where neither has a word."""
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right) if left or right else 0.0


def _contrasted(rollout: Rollout) -> Iterator[tuple[int, str, str]]:
    """Turn, chosen and rejected reply of every contrast that is in the conversation."""
    for contrast in rollout.contrasts:
        index = len(rollout.context) + 2 * (contrast.turn - 1)
        if index < min(len(rollout.chosen), len(rollout.rejected)):
            yield contrast.turn, rollout.chosen[index]["content"], rollout.rejected[index]["content"]


def _parting(rollout: Rollout) -> int:
    """Index of the first message in which the sides differ."""
    pairs = zip(rollout.chosen, rollout.rejected, strict=False)
    different = (index for index, (one, other) in enumerate(pairs) if one != other)
    return next(different, min(len(rollout.chosen), len(rollout.rejected)))


def _text(messages: list[Message]) -> str:
    return "\n".join(message["content"] for message in messages)
