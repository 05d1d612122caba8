"""The judge's prompt: two conversations as data, each message in a fence that its text cannot close.

Knows the template and the messages; it does not know which conversation should win.
"""

from __future__ import annotations

from collections.abc import Sequence

from music_ray import prompts
from music_ray.engines.base import Prompt
from music_ray.schema import Message

TEMPLATE = "judge_pair.j2"


def judge_prompt(a: Sequence[Message], b: Sequence[Message]) -> Prompt:
    """Asks for a verdict on the conversations a (called A) and b (called B).

    What both begin with is shown once: it costs half the tokens, and says where to look.
    """
    shared = _shared(a, b)
    text = prompts.render(TEMPLATE, shared=list(a[:shared]), a=list(a[shared:]), b=list(b[shared:]))
    return Prompt([{"role": "user", "content": text}])


def _shared(a: Sequence[Message], b: Sequence[Message]) -> int:
    """How many messages both begin with; each keeps one of its own at least, where it has any."""
    most = max(min(len(a), len(b)) - 1, 0)
    return next((index for index in range(most) if a[index] != b[index]), most)
