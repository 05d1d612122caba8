"""Configuration of the roles: user simulator, assistant, and the contrast of the rejected branch."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from music_ray.config.base import Section
from music_ray.config.engine import SamplingConfig

_USER_SAMPLING: dict[str, Any] = {"temperature": 0.8, "max_tokens": 64}


class UserConfig(Section):
    """The user simulator."""

    mode: Literal["prompted", "template"] = "prompted"
    """prompted: the model is told to play the user. template: it continues the bare chat template
    after the user header, which small instruct models do well."""

    sampling: SamplingConfig = SamplingConfig(**_USER_SAMPLING)
    """How user messages are sampled: by default at temperature 0.8 with at most 64 tokens, the paper's
    budget."""

    max_attempts: int = Field(default=3, ge=1)
    """Draws of a user message before the branch stops with the reason empty_user_message."""

    @field_validator("sampling", mode="before")
    @classmethod
    def _own_defaults(cls, value: Any) -> Any:
        """A sampling section that sets one key keeps the user's defaults for the others."""
        return _USER_SAMPLING | value if isinstance(value, dict) else value


class AssistantConfig(Section):
    """The assistant that answers."""

    sampling: SamplingConfig = SamplingConfig()
    """How replies are sampled."""

    hint: str | None = None
    """A sentence appended to the last user message of every prompt, such as a request for brevity; it
    is not part of the recorded conversation. None sends the conversation as it is."""


SCHEDULE_HELP = "all | from_turn:K | probability:P | turns:[K, …]"


def parse_schedule(text: str) -> tuple[str, float | list[int]]:
    """A contrast schedule as (kind, argument).

    Raises:
        ValueError: the text is not one of all | from_turn:K | probability:P | turns:[K, …].
    """
    if text == "all":
        return "from_turn", [1]
    if match := re.fullmatch(r"from_turn:\s*(\d+)", text):
        return "from_turn", [int(match[1])]
    number = r"\d+\.?\d*|\.\d+"
    if (match := re.fullmatch(rf"probability:\s*({number})", text)) and 0 < float(match[1]) <= 1:
        return "probability", float(match[1])
    if match := re.fullmatch(r"turns:\s*\[\s*(\d+(?:\s*,\s*\d+)*)\s*,?\s*\]", text):
        return "turns", sorted({int(part) for part in match[1].split(",")})
    raise ValueError(f"schedule {text!r} is not one of {SCHEDULE_HELP} (P above 0 and at most 1)")


class ContrastConfig(Section):
    """How the rejected branch is spoiled (docs/explanation/method.md)."""

    mode: Literal["joint", "two_step", "neighbour", "resample"] = "joint"
    """joint: one call writes the modified instruction and the reply to it. two_step: first the
    instruction, then a clean call that answers it. neighbour: the instruction is a similar user
    message from the pool of seeds (TF-IDF). resample: it is another message that the user simulator
    draws at the same point. The first two need a capable model."""

    schedule: str = "all"
    """The assistant turns that are spoiled: all | from_turn:K | probability:P | turns:[K, …], counted
    from 1 after the seed. With probability, a row in which no turn was drawn gets one turn, drawn
    uniformly, so that every row has a contrast. The paper does not say which turns: an ablation."""

    max_attempts: int = Field(default=3, ge=1)
    """Calls per modified instruction before the row ends with contrast_unparsed or
    contrast_not_different."""

    pool_size: int = Field(default=2000, ge=2)
    """neighbour: how many user messages the pool holds (the first of D's training part)."""

    max_similarity: float = Field(default=0.8, gt=0.0, le=1.0)
    """A modified instruction at least this like the user's message (neighbour: TF-IDF cosine; all modes:
    shared words over all words) asks the same in other words, and is drawn again."""

    sampling: SamplingConfig = SamplingConfig()
    """How the contrast calls are sampled: joint's only call, two_step's first. The reply to a modified
    instruction that stands alone is sampled like any assistant reply."""

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, text: str) -> str:
        parse_schedule(text)
        return text
