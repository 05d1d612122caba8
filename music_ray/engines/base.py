"""The protocol that every engine fulfils, and what can go wrong with one request.

An engine knows nothing of rollouts: it gets messages, who speaks next, and how to sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from music_ray.config import SamplingConfig
from music_ray.schema import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the next text follows on."""

    messages: list[Message]
    """For the assistant: ends on a user message. For the user: ends on a reply, or is empty."""
    speaker: Literal["assistant", "user"] = "assistant"
    """assistant: the reply to the last message. user: the next user message, as the bare chat
    template continues after the user header."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated text and its accounts."""

    text: str
    finish_reason: str
    """'stop', or 'length' when it was cut off at max_tokens."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose keys and values the engine had in its prefix cache."""
    completion_tokens: int


class PromptTooLongError(Exception):
    """The prompt and its longest reply do not fit the engine; another conversation may."""


class RequestError(Exception):
    """The engine refused this one request; others go on."""

    def __init__(self, message: str, reason: str = "request_refused") -> None:
        super().__init__(message)
        self.reason = reason
        """Why, in snake_case: what a row that stops here is counted as."""


class EndpointFailedError(RequestError):
    """An endpoint gave no usable answer, however often it was asked; another request may get one.

    Its `reason` is rate_limited, endpoint_timeout, endpoint_unavailable, endpoint_malformed or
    usage_missing.
    """


class EngineDeadError(Exception):
    """The engine will never answer again; its process must be replaced."""


class Engine(Protocol):
    """One model, ready to answer many requests at once."""

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """One text. The same prompt, sampling and seed give the same text as far as the engine can.

        Raises:
            PromptTooLongError, RequestError: this request can't be answered.
            EngineDeadError: no request can be answered any more.
            InputError: an endpoint refuses the key or knows no such model: the user must mend that.
        """
        ...

    def describe(self) -> dict[str, str]:
        """`engine` (name and version), `model`, `model_revision`: recorded in every row."""
        ...

    def close(self) -> None:
        """Frees the model's memory."""
        ...


@dataclass(frozen=True)
class RoleEngines:
    """Which engine plays which role; mostly one plays all."""

    assistant: Engine
    user: Engine
    contrast: Engine
    """Writes modified instructions; the clean reply to one is the assistant's."""

    @classmethod
    def same(cls, engine: Engine) -> RoleEngines:
        """One engine for all roles."""
        return cls(engine, engine, engine)
