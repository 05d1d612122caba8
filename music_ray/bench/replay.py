"""The requests that rollouts made, and how other ways of making the same ones compare.

Every request generates exactly as many tokens as its seed says, and does not stop before: so all ways
make the same tokens. Pure: knows neither vLLM nor the clock.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from music_ray.schema import unit_interval

_TOPICS = (
    "a rain gauge", "sourdough bread", "the tides", "a bicycle gear", "chess openings", "a sundial",
    "the water cycle", "a mortgage", "beekeeping", "a violin", "glass blowing", "the Silk Road",
    "a heat pump", "origami", "volcanoes", "a stock index", "knitting", "lighthouses", "a fermentation jar",
    "the Fibonacci numbers", "a compost heap", "tennis scoring", "a suspension bridge", "noise cancelling",
)  # fmt: skip
_ASKED = (
    "Explain {} to a curious child, please.",
    "What are three common mistakes with {}, and how does one avoid them?",
    "I know nothing about {}. Where do I start?",
    "Write a short advertisement for {}.",
    "Who would never like {}, and why not? Give me two reasons that a friend of mine would accept.",
    "Compare {} with something that everybody has at home.",
    "Tell me a story about {}.",
    "What should I ask an expert on {}? I have one hour with her next week and want to use it well.",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One engine call of a rollout."""

    token_ids: list[int]
    num_tokens: int
    """Tokens that it generates: this many, whatever they are."""
    seed: int
    temperature: float
    step: int
    """Half-turn: 2t − 1 for replies of turn t, 2t for the user messages after them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way of making a set of requests took."""

    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that came from the prefix cache."""
        return self.cached_tokens / max(self.prompt_tokens, 1)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median over rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def speed_ratio(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Our speed over a peer's in the same rounds: seconds of the peer over ours, for equal tokens."""
    ratios = [other / own for own, other in zip(ours, peer, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def planned_tokens(seed: int, longest: int) -> int:
    """Tokens that the request with this seed generates: exponential, a quarter of `longest` in the mean.

    As with replies that a model ends itself, most are short and a few reach the limit.
    """
    exponential = -math.log(1.0 - unit_interval("length", seed))
    return min(1 + int(exponential * longest / 4), longest)


def half_turns(requests: Iterable[Request]) -> list[list[Request]]:
    """The requests by half-turn, in order: what a script with a barrier after each half-turn submits."""
    ordered = sorted(requests, key=lambda request: request.step)
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda request: request.step)]


def questions(number: int, start: int = 0) -> list[str]:
    """Different first user messages; `start` lets every round have its own."""
    every = [asked.format(topic) for asked in _ASKED for topic in _TOPICS]
    # Numbered from the second time on, so that no two are equal.
    laps = (divmod(index, len(every)) for index in range(start, start + number))
    return [every[at] if lap == 0 else f"{every[at]} (Version {lap + 1}.)" for lap, at in laps]
