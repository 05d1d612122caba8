"""Configuration of what becomes of rollouts: the quality gates of the pairs stage."""

from __future__ import annotations

from pydantic import Field

from music_ray.config.base import Section


class GatesConfig(Section):
    """Quality gates of the pairs stage. A rollout that fails one is counted under the gate's name."""

    empty: bool = True
    """Refuse a rollout in which any generated message is empty."""

    cut_off: bool = True
    """Refuse a rollout in which a reply or user message ended at its token limit."""

    branches_equal: bool = True
    """Refuse a rollout in which a contrasted reply equals the chosen reply of the same turn."""

    template_leak: bool = True
    """Refuse a rollout in which chat-template or role markers leaked into the text."""

    looping: bool = True
    """Refuse a rollout in which a message repeats itself (a word n-gram or line, see loop_ngram)."""

    loop_ngram: int = Field(default=8, ge=2)
    """looping: length in words of the n-gram that must not recur too often."""

    loop_count: int = Field(default=3, ge=2)
    """looping: how often the same n-gram (or the same line) makes a message a loop."""


class PairsConfig(Section):
    """From rollouts to pairs."""

    gates: GatesConfig = GatesConfig()
    """Which gates a rollout must pass, and their bounds."""
