"""An engine without a model: its text is a function of the prompt, the speaker and the seed.

For tests of everything that is not the model, and for measuring what our own code costs. A test can
give its own `script` to make exactly the text, delay or failure that it needs.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from music_ray.config import SamplingConfig
from music_ray.engines.base import Completion, Prompt
from music_ray.schema import content_id

Script = Callable[[Prompt, SamplingConfig, int], "str | Completion | Awaitable[str | Completion]"]

_WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbour", "island", "juniper"),
    *("kettle", "lantern", "meadow", "nectar", "orchard", "pebble", "quartz", "river", "saffron"),
    *("timber", "umbra", "valley", "willow", "yarrow", "zephyr"),
)


class ScriptedEngine:
    """Answers at once with words drawn by a hash, or with what the script says."""

    def __init__(self, script: Script | None = None) -> None:
        self._script = script or _default_script

    def describe(self) -> dict[str, str]:
        """Recorded in every row."""
        return {"engine": "scripted", "model": "scripted", "model_revision": ""}

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate."""
        await asyncio.sleep(0)  # let other rollouts in, as any real engine would
        answer = self._script(prompt, sampling, seed)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Completion):
            return answer
        words = sum(len(message["content"].split()) for message in prompt.messages)
        return Completion(
            sampling.begin + answer,
            "stop",
            prompt_tokens=words,
            cached_tokens=0,
            completion_tokens=len(answer.split()),
        )

    def close(self) -> None:
        """Nothing to free."""


def _default_script(prompt: Prompt, sampling: SamplingConfig, seed: int) -> str:
    number = content_id([[dict(message) for message in prompt.messages], prompt.speaker, seed])
    length = min(sampling.max_tokens, 6 + number % 7)
    words = [_WORDS[(number >> (5 * index)) % len(_WORDS)] for index in range(length)]
    return " ".join(words).capitalize() + ("?" if prompt.speaker == "user" else ".")
