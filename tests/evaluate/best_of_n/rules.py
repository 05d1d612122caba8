"""Speakers and reward models that are a rule each, so that every pick can be worked out by hand.

They are made where the real ones are made, from what reaches an engine actor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from music_ray.config import RunConfig
from music_ray.engines.base import Completion, RequestError
from music_ray.errors import InputError
from music_ray.evaluate.best_of_n.tools import Tools
from music_ray.evaluate.best_of_n.tree import Conversation
from music_ray.jobs.metrics import Metrics
from music_ray.schema import Message
from music_ray.score.settings import scoring_config

RULES = {
    "longest": lambda text: float(len(text.split())),
    "shortest": lambda text: -float(len(text.split())),
    "indifferent": lambda text: 1.0,
}


def vowels(messages: Sequence[Message], answer: str | None = None) -> float:
    """A checker: how many vowels the replies have."""
    replies = "".join(one["content"] for one in messages if one["role"] == "assistant")
    return float(sum(letter in "aeiou" for letter in replies.lower()))


def talk(*texts: str) -> Conversation:
    """A conversation of these texts, the user first."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


class CountingUp:
    """Candidate k has k + 1 words, and the user counts the words that it was told so far.

    A prompt that begins with "fail" has no replies: the word after it is the reason.
    """

    said: ClassVar[Counter[str]] = Counter()
    """Requests of all of them, by kind."""

    def __init__(self, config: RunConfig, counts: Counter[str], metrics: Metrics) -> None:
        self.counts = counts

    async def reply(self, history: Sequence[Message], number: int) -> Completion:
        first, _, reason = history[0]["content"].partition(" ")
        if first == "fail":
            raise RequestError("as the prompt says", reason)
        return self._say("reply", "word " * (number + 1))

    async def question(self, history: Sequence[Message]) -> Completion:
        words = sum(len(one["content"].split()) for one in history if one["role"] == "assistant")
        return self._say("question", f"{words} so far?")

    def _say(self, kind: str, text: str) -> Completion:
        CountingUp.said[kind] += 1
        self.counts["calls"] += 1
        return Completion(text.strip(), "stop", 10, 4, len(text.split()))

    def describe(self) -> dict[str, str]:
        return {"engine": "rules", "model": "counting", "model_revision": "", "user_model": "counting"}


class RuleScorer:
    """Scores a last reply by the rule in rule.json of its folder; one with `too_long` words has none."""

    asked: ClassVar[Counter[str]] = Counter()
    """Conversations that were scored, by rule."""

    def __init__(self, config: RunConfig, epoch: int, payload: dict[str, Any], metrics: Metrics) -> None:
        settings = json.loads((Path(config.engine.model) / "rule.json").read_text())
        self.name, self.too_long = settings["rule"], settings.get("too_long", 10**9)

    async def work(self, row: dict[str, Any]) -> Any:
        RuleScorer.asked[self.name] += 1
        text = row["messages"][-1]["content"]
        if len(text.split()) >= self.too_long:
            return SimpleNamespace(score=None, reason="over_length", detail="")
        return SimpleNamespace(score=RULES[self.name](text), reason="", detail="")

    def counts(self) -> dict[str, int]:
        return {"calls": RuleScorer.asked[self.name]}


def check_model(folder: str) -> Any:
    """As a model whose own number format is bfloat16."""
    if not (Path(folder) / "rule.json").exists():
        raise InputError(f"{folder} is no reward model")
    name = f"digest of {Path(folder).name}"
    return SimpleNamespace(folder=folder, place=folder, digest=name, dtype="bfloat16", max_positions=2048)


TOOLS = Tools(check_model, scoring_config, scorer=RuleScorer, speakers=CountingUp)
