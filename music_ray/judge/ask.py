"""Asking a judge about two conversations, once in each order.

Knows an engine and its failures; what becomes of a verdict is the caller's business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from music_ray.config import SamplingConfig
from music_ray.engines.base import Engine, PromptTooLongError, RequestError
from music_ray.judge.prompt import judge_prompt
from music_ray.judge.verdict import Verdict, both_orders, read_verdict
from music_ray.schema import Message, content_id

ATTEMPTS = 2
"""An answer without a verdict is drawn once more, with another seed."""
RETRY_TEMPERATURE = 0.5
"""At least so warm is the second draw: a greedy one would be the same text for another seed."""


@dataclass(slots=True)
class Judgement:
    """What a judge said of two conversations, and what that took."""

    first: Verdict | None = None
    """With the first conversation as A; None when the engine did not answer."""
    second: Verdict | None = None
    """With the second conversation as A."""
    first_answer: str = ""
    second_answer: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    reason: str = ""
    """Why the engine did not answer (context_full, rate_limited, …); empty when it did, twice."""
    detail: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """Of both orders together: A is the first conversation. None without two answers."""
        return both_orders(self.first, self.second) if self.first and self.second else None


@dataclass(frozen=True)
class Judge:
    """An engine that judges."""

    engine: Engine
    sampling: SamplingConfig

    async def compare(self, one: Sequence[Message], other: Sequence[Message], *, seed: int) -> Judgement:
        """Both orders, one after the other; a request that fails ends it, and its reason is kept.

        Args:
            seed: any number that is this comparison's own: all requests' seeds derive from it.

        Raises:
            EngineDeadError: the engine is gone; nothing is decided.
            InputError: an endpoint's key or model is wrong: the user must mend that.
        """
        said = Judgement()
        started = time.monotonic()
        try:
            said.first, said.first_answer = await self._ask(one, other, [seed, "first"], said)
            said.second, said.second_answer = await self._ask(other, one, [seed, "second"], said)
        except PromptTooLongError as error:
            said.reason, said.detail = "context_full", str(error)
        except RequestError as error:
            said.reason, said.detail = error.reason, str(error)
        said.seconds = time.monotonic() - started
        return said

    async def _ask(
        self, a: Sequence[Message], b: Sequence[Message], seed: list[int | str], account: Judgement
    ) -> tuple[Verdict, str]:
        """One order: the verdict and the answer that it was read from."""
        prompt, sampling = judge_prompt(a, b), self.sampling
        verdict, answer = Verdict.INVALID, ""
        for attempt in range(ATTEMPTS):
            completion = await self.engine.generate(prompt, sampling, content_id([*seed, attempt]) % 2**31)
            account.prompt_tokens += completion.prompt_tokens
            account.cached_tokens += completion.cached_tokens
            account.completion_tokens += completion.completion_tokens
            answer = completion.text.strip()
            verdict = read_verdict(answer)
            if verdict is not Verdict.INVALID:
                break
            warmer = max(sampling.temperature, RETRY_TEMPERATURE)
            sampling = sampling.model_copy(update={"temperature": warmer})
        return verdict, answer
