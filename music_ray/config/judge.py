"""Configuration of a judge that compares two conversations, and of what its verdicts decide."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from music_ray.config.base import Section
from music_ray.config.engine import EngineConfig, SamplingConfig

_JUDGE_SAMPLING: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 512}


class AskedJudge(Section):
    """A model that says of two conversations, in both orders, which is better."""

    engine: EngineConfig | None = None
    """The model that judges, of any kind; it is not shared with the rollouts' engine. No judge when empty.
    Another model, sampling or prompt makes new verdicts; the former ones are kept."""

    sampling: SamplingConfig = SamplingConfig(**_JUDGE_SAMPLING)
    """How its answers are sampled: by default greedily, with at most 512 tokens. An answer without a
    verdict is drawn once more, with another seed and at temperature 0.5 at least."""

    @field_validator("sampling", mode="before")
    @classmethod
    def _own_defaults(cls, value: Any) -> Any:
        """A sampling section that sets one key keeps the judge's defaults for the others."""
        return _JUDGE_SAMPLING | value if isinstance(value, dict) else value


class JudgeConfig(AskedJudge):
    """A judge says of every pair, in both orders, which side is better. Without an engine there is none."""

    require: Literal["not_worse", "wins"] = "not_worse"
    """not_worse: a pair is refused when the rejected side wins in both orders. wins: also when neither
    side does, which is a tie, as two orders are that contradict each other."""

    on_invalid: Literal["keep", "refuse"] = "keep"
    """What becomes of a pair on which an order gave no verdict twice; it is counted in any case. A pair on
    which the engine did not answer (an error row) is always kept and counted."""
