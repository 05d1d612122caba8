"""The gates that look at one message at a time: is it there, whole, free of markers, and no loop?"""

from __future__ import annotations

import re
import string
from collections import Counter

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import generated, shorten
from music_ray.schema import Call, Rollout

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


def empty(rollout: Rollout, gates: GatesConfig) -> str:
    """A generated message without text."""
    for message in generated(rollout):
        if not message.text.strip():
            return f"{message.where} is empty"
    return ""


def cut_off(rollout: Rollout, gates: GatesConfig) -> str:
    """A message of the conversation that ended at its token limit."""
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


def template_leak(rollout: Rollout, gates: GatesConfig) -> str:
    """A marker of a chat template, of a transcript or of our own prompts in the text."""
    for message in generated(rollout):
        if found := _LEAKS.search(message.text):
            return f"{message.where} holds {found[0].strip()!r}"
    return ""


def looping(rollout: Rollout, gates: GatesConfig) -> str:
    """A message that says the same again and again (find_loop)."""
    for message in generated(rollout):
        if repeated := find_loop(message.text, gates.loop_ngram, gates.loop_count):
            return f"{message.where} repeats {shorten(repeated)!r}"
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
