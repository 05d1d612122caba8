"""Configuration of the roles: user simulator, assistant, and the contrast of the rejected branch."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from music_ray.config.base import FREE, Section
from music_ray.config.engine import EngineConfig, SamplingConfig

_USER_SAMPLING: dict[str, Any] = {"temperature": 0.8, "max_tokens": 64}


class UserConfig(Section):
    """The user simulator."""

    mode: Literal["prompted", "template"] = "prompted"
    """prompted: the model is told to play the user. template: it continues the bare chat template
    after the user header, which small instruct models do well."""

    history: Literal["own", "replay_chosen"] = "own"
    """own (the paper): after the branches part, each has user messages written from its own history.
    replay_chosen: the rejected branch gets the chosen branch's user messages, word for word, so that no
    user complains on the rejected side, and none of them is paid for twice."""

    sampling: SamplingConfig = SamplingConfig(**_USER_SAMPLING)
    """How user messages are sampled: by default at temperature 0.8 with at most 64 tokens, the paper's
    budget."""

    max_attempts: int = Field(default=3, ge=1)
    """Draws of a user message before the branch stops with the reason empty_user_message."""

    engine: EngineConfig | None = None
    """Another model that plays the user: kind endpoint or scripted. The section engine when empty."""

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


PROMPTED_MODES = ("joint", "two_step", "direct")
"""Contrast modes in which the model is told to contrast; they have a prompt template."""


class ContrastConfig(Section):
    """How the rejected branch is spoiled (docs/explanation/method.md)."""

    mode: Literal["joint", "two_step", "direct", "neighbour", "resample"] = "joint"
    """joint: one call writes the modified instruction and the reply to it. two_step: first the
    instruction, then a clean call that answers it. direct: one call writes a reply to something else,
    and no instruction is recorded. neighbour: the instruction is a similar user message from the pool of
    seeds (TF-IDF). resample: it is another message that the user simulator draws at the same point. The
    first three need a capable model."""

    template: str | None = Field(default=None, min_length=1, json_schema_extra=FREE)
    """joint, two_step, direct: a Jinja file that replaces the mode's own prompt, or the template's text
    itself (whatever holds a line break). Its text is hashed into the run's identity; its path is free
    (docs/how-to/own-contrasts.md)."""

    plugin: str | None = None
    """`module:function`, an async function that writes contrasted replies in the place of any mode. The
    module's source file is hashed into the run's identity (docs/how-to/own-contrasts.md)."""

    show_chosen_reply: bool = False
    """joint, two_step, direct and plugin: show the good reply at the first contrasted turn, the only one
    at which both branches answer the same user message. The rejected branch then waits for it."""

    schedule: str = "all"
    """The assistant turns that are spoiled: all | from_turn:K | probability:P | turns:[K, …], counted
    from 1 after the seed. With probability, a row in which no turn was drawn gets one turn, drawn
    uniformly, so that every row has a contrast. The paper does not say which turns: an ablation."""

    max_attempts: int = Field(default=3, ge=1)
    """Attempts per contrasted reply before the branch stops with contrast_unparsed or
    contrast_not_different."""

    pool_size: int = Field(default=2000, ge=2)
    """neighbour: how many user messages the pool holds (the first of D's training part)."""

    max_similarity: float = Field(default=0.8, gt=0.0, le=1.0)
    """A modified instruction at least this like the user's message (neighbour: TF-IDF cosine; all modes:
    shared words over all words) asks the same in other words, and is drawn again."""

    sampling: SamplingConfig = SamplingConfig()
    """How the contrast calls are sampled: the only call of joint and direct, two_step's first, a
    plugin's. The reply to a modified instruction that stands alone is sampled like any assistant reply."""

    engine: EngineConfig | None = None
    """Another model that writes modified instructions (joint and direct: and the replies to them): kind
    endpoint or scripted. The section engine when empty."""

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, text: str) -> str:
        parse_schedule(text)
        return text

    @field_validator("plugin")
    @classmethod
    def _names_a_function(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            raise ValueError(f"plugin {name!r} is not of the form module:function, e.g. my_contrasts:drift")
        return name

    @model_validator(mode="after")
    def _possible_together(self) -> ContrastConfig:
        own_prompt = self.mode in PROMPTED_MODES
        if self.plugin and (self.template or self.mode != "joint"):
            other = f"template ({_first_line(self.template)})" if self.template else f"mode ({self.mode})"
            raise ValueError(f"plugin ({self.plugin}) replaces {other}: remove one of the two")
        if self.template and not own_prompt:
            raise ValueError(
                f"template ({_first_line(self.template)}) replaces a mode's prompt, but mode={self.mode} has "
                f"none: remove it, or set mode to one of {', '.join(PROMPTED_MODES)}"
            )
        if self.show_chosen_reply and not own_prompt:
            raise ValueError(
                f"show_chosen_reply=true shows the chosen reply in a mode's prompt, but mode={self.mode} has "
                f"none: remove it, or set mode to one of {', '.join(PROMPTED_MODES)}"
            )
        return self


def _first_line(text: str) -> str:
    """What messages show of a template that may be given as text."""
    return text.strip().partition("\n")[0][:60]
