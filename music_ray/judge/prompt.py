"""The judge's prompt: two conversations as data, each message in a fence that its text cannot close.

Nor can it end the judge's own turn: where a text imitates the control tokens of a chat template, which
tokenizers read in any text, a space is put into them.

Knows the template and the messages; it does not know which conversation should win.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence

from music_ray import prompts
from music_ray.engines.base import Prompt
from music_ray.schema import Message

TEMPLATE = "judge_pair.j2"
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^<>\n]{1,60}>|[^<>|\uff5c\s]{1,60}[|\uff5c]>|/?s>|<?/?SYS>"
    r"|(?:start_of_turn|end_of_turn|start_of_image|end_of_image|bos|eos|pad|unk|mask|sop|eop|seed:\w{1,20})>)"
    r"|\[(?=\|[^\[\]\n]{1,60}\|\]|/?INST\]|/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT|THINK|IMG)\]"
    r"|(?:TOOL_CALLS|CALL_ID|ARGS|IMG_BREAK|IMG_END)\])",
    re.IGNORECASE,
)
"""The first character of a control token of the usual chat templates (Llama, Gemma, Mistral, Qwen, …): a bar
inside of either bracket is enough, as in Gemma 4's <turn|> and <|turn>."""
_DEFUSED = r"\g<0> "
"""What takes its place."""


@functools.cache
def judge_hash() -> str:
    """Hash over what makes a prompt of two conversations: the judge's templates, and the rule for control
    tokens. Part of what a verdict is kept under."""
    parts = (prompts.judge_hash(), _CONTROL.pattern, str(int(_CONTROL.flags)), _DEFUSED)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def judge_prompt(a: Sequence[Message], b: Sequence[Message]) -> Prompt:
    """Asks for a verdict on the conversations a (called A) and b (called B).

    What both begin with is shown once: it costs half the tokens, and says where to look.
    """
    shared = _shared(a, b)
    parts = {"shared": a[:shared], "a": a[shared:], "b": b[shared:]}
    text = prompts.render(TEMPLATE, **{name: _defused(messages) for name, messages in parts.items()})
    return Prompt([{"role": "user", "content": text}])


def _defused(messages: Sequence[Message]) -> list[Message]:
    """The messages with a space in what a tokenizer would take for control tokens."""
    return [
        {"role": message["role"], "content": _CONTROL.sub(_DEFUSED, message["content"])}
        for message in messages
    ]


def _shared(a: Sequence[Message], b: Sequence[Message]) -> int:
    """How many messages both begin with; each keeps one of its own at least, where it has any."""
    most = max(min(len(a), len(b)) - 1, 0)
    return next((index for index in range(most) if a[index] != b[index]), most)
