"""The quality gates: why a rollout that ended well is still no training pair.

A gate looks at generated messages alone; what the seed brought along is D's business. Gates are pure
functions of one rollout, so changed gates rerun from the pairs stage only.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from music_ray.config import GatesConfig
from music_ray.schema import Call, Rollout

_TEXT_SHOWN = 80
_LINE_WORDS = 4
"""Shorter lines recur in honest text: code, tables, refrains of a list."""

_LEAKS = re.compile(
    r"""
      <[|\uFF5C][^|\uFF5C<>\n]{1,40}[|\uFF5C]>          # <|im_start|>, <|eot_id|>; DeepSeek's wide bars
    | <(?:start|end)_of_turn> | <(?:bos|eos|pad|unk)>       # Gemma
    | </?s> | \[/?INST\] | <</?SYS>>                        # Llama 2, Mistral
    | </?think>                                             # reasoning models
    | </?(?:modified_instruction|reply)>                    # our own contrast prompt
    | ^[ \t]*\#\#\#[ \t]*(?:Human|User|Assistant|System|Instruction|Response|Input)[ \t]*:  # Alpaca, Vicuna
    | ^[ \t]*\**(?:Human|User|Assistant)\**[ \t]*:          # transcripts
    | ^(?:user|assistant)[ \t]*$                            # a header whose special tokens were skipped
    """,
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rollout gives no pair: the reason is counted, the detail is for the reader."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Generated:
    """One generated message, and where it stands."""

    where: str
    text: str


def first_refusal(rollout: Rollout, gates: GatesConfig) -> Refusal | None:
    """The first gate that a rollout with status ok fails, None when it passes all that are switched on."""
    for name, gate in _GATES.items():
        if getattr(gates, name) and (detail := gate(rollout, gates)):
            return Refusal(name, detail)
    return None


def _empty(rollout: Rollout, gates: GatesConfig) -> str:
    for message in _generated(rollout):
        if not message.text.strip():
            return f"{message.where} is empty"
    return ""


def _cut_off(rollout: Rollout, gates: GatesConfig) -> str:
    for call in rollout.calls:
        if call.recorded and call.finish_reason == "length" and _is_in_conversation(call, rollout):
            what = "user message after" if call.role == "user" else "reply of"
            return (
                f"the {what} turn {call.turn} ({call.branch}) was cut off after "
                f"{call.completion_tokens} tokens"
            )
    return ""


def _is_in_conversation(call: Call, rollout: Rollout) -> bool:
    """False for messages that went when both branches were cut to equal turns.

    A user message carries the turn that it follows, so the one after the last turn is gone.
    """
    last = rollout.num_generated_turns
    return call.turn < last if call.role == "user" else call.turn <= last


def _branches_equal(rollout: Rollout, gates: GatesConfig) -> str:
    if rollout.chosen == rollout.rejected:
        return "chosen and rejected hold the same messages"
    for contrast in rollout.contrasts:
        index = len(rollout.context) + 2 * (contrast.turn - 1)
        if index >= min(len(rollout.chosen), len(rollout.rejected)):
            continue
        if rollout.chosen[index]["content"].strip() == rollout.rejected[index]["content"].strip():
            return f"the contrasted reply of turn {contrast.turn} equals the chosen one"
    return ""


def _template_leak(rollout: Rollout, gates: GatesConfig) -> str:
    for message in _generated(rollout):
        if found := _LEAKS.search(message.text):
            return f"{message.where} holds {found[0].strip()!r}"
    return ""


def _looping(rollout: Rollout, gates: GatesConfig) -> str:
    for message in _generated(rollout):
        if repeated := find_loop(message.text, gates.loop_ngram, gates.loop_count):
            return f"{message.where} repeats {_shorten(repeated)!r}"
    return ""


def find_loop(text: str, ngram: int, count: int) -> str:
    """What a text says at least `count` times: a run of `ngram` words, or a line; empty when nothing."""
    # Without punctuation, so that a table's rules are no loop and a sentence's end is no difference.
    words = [word for raw in text.lower().split() if (word := raw.strip(string.punctuation))]
    runs = Counter(tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1))
    lines = Counter(line for line in (raw.strip() for raw in text.split("\n")) if _is_sentence_like(line))
    for table in (runs, lines):
        if table:
            most, times = table.most_common(1)[0]
            if times >= count:
                return most if isinstance(most, str) else " ".join(most)
    return ""


def _is_sentence_like(line: str) -> bool:
    return sum(any(map(str.isalnum, word)) for word in line.split()) >= _LINE_WORDS


def _generated(rollout: Rollout) -> Iterator[_Generated]:
    first = len(rollout.context)
    for branch, messages in (("chosen", rollout.chosen), ("rejected", rollout.rejected)):
        for offset, message in enumerate(messages[first:]):
            turn = offset // 2 + 1
            what = "the reply of" if message["role"] == "assistant" else "the user message after"
            yield _Generated(f"{what} turn {turn} ({branch})", message["content"])


def _shorten(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"


_GATES: dict[str, Callable[[Rollout, GatesConfig], str]] = {
    "empty": _empty,
    "cut_off": _cut_off,
    "branches_equal": _branches_equal,
    "template_leak": _template_leak,
    "looping": _looping,
}
