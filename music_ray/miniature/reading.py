"""Reading user messages of the miniature's language: understood exactly, or not at all.

A sentence is looked up by its words, with a mark in the place of letters, names and numbers. This module does
not know what a right reply is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from music_ray.miniature.language import (
    ALPHABET,
    COMPLAINTS,
    CONSTRAINTS,
    CONTENT,
    LAST,
    NAMES,
    NAMING,
    REQUESTS,
    Ask,
    Constraint,
    Instruction,
    Source,
    text,
    tokens,
)

_LIST, _NAME, _NUMBER = "<list>", "<name>", "<number>"
_LETTERS = frozenset(ALPHABET)
_DIGITS = frozenset("0123456789")
_ENDS = frozenset(".!?")
_MOODS = frozenset((*CONTENT, *COMPLAINTS))

Words = tuple[str, ...]


class Sentence(NamedTuple):
    """One sentence of a message, taken apart."""

    text: str
    words: Words
    """Its tokens, with a mark for each run of letters, name and number."""
    values: list[str]
    """What stands at the marks, in their order."""


class _Request(NamedTuple):
    """A request pattern: the operation, and the number of the value (or -1: the last answer) of each slot."""

    operation: str
    slots: dict[str, int]


def sentences(message: str) -> list[Sentence]:
    """The sentences of a message; each ends on . ! or ?"""
    return [_marked(sentence) for sentence in _split(tokens(message))]


@functools.lru_cache(maxsize=1 << 12)
def parse(message: str) -> Ask | None:
    """What a user message asks for; None where it is not of this language."""
    left = sentences(message)
    mood = left.pop(0).text if left and left[0].text in _MOODS else ""
    instruction = _instruction(left.pop(0)) if left else None
    if instruction is None:
        return None
    name = left.pop(0).values[0] if left and left[0].words in _NAMINGS else ""
    constraint = _constraint(left[0]) if left else None
    if constraint is not None:
        left.pop(0)
    return None if left else Ask(instruction, mood, name, constraint)


def replace_request(message: str, request: str) -> str:
    """The message with another request in the place of its own; the rest keeps its words.

    Args:
        request: a sentence of the language.

    Raises:
        ValueError: the message holds no request.
    """
    parts = sentences(message)
    for index, sentence in enumerate(parts):
        if sentence.words in _REQUESTS:
            return " ".join([request if at == index else part.text for at, part in enumerate(parts)])
    raise ValueError(f"no request in {message!r}")


def with_mood(message: str, mood: str) -> str:
    """The message with another first sentence about the reply before; '' takes it out."""
    parts = [sentence.text for sentence in sentences(message)]
    if parts and parts[0] in _MOODS:
        parts = parts[1:]
    return " ".join([mood, *parts] if mood else parts)


def _split(parts: list[str]) -> Iterator[list[str]]:
    start = 0
    for index, token in enumerate(parts):
        if token in _ENDS:
            yield parts[start : index + 1]
            start = index + 1
    if start < len(parts):
        yield parts[start:]


def _marked(sentence: list[str]) -> Sentence:
    words: list[str] = []
    values: list[str] = []
    in_list = False
    for token in sentence:
        if token in _LETTERS and in_list:
            values[-1] += token
            continue
        in_list = token in _LETTERS
        mark = _LIST if in_list else _NAME if token in NAMES else _NUMBER if token[0] in _DIGITS else ""
        words.append(mark or token)
        if mark:
            values.append(token)
    return Sentence(text(sentence), tuple(words), values)


def _instruction(sentence: Sentence) -> Instruction | None:
    request = _REQUESTS.get(sentence.words)
    if request is None:
        return None
    marks = [word for word in sentence.words if word in (_LIST, _NAME, _NUMBER)]

    def source(slot: str) -> Source:
        number = request.slots[slot]
        if number < 0:
            return Source("last")
        return Source("list" if marks[number] == _LIST else "name", sentence.values[number])

    if request.operation == "first":
        number = sentence.values[request.slots["k"]]
        # No list is so long; 0 asks for nothing.
        return Instruction("first", source("x"), k=int(number)) if len(number) < 3 and int(number) else None
    return Instruction(request.operation, source("x"), source("y") if "y" in request.slots else None)


def _constraint(sentence: Sentence) -> Constraint | None:
    kind = _CONSTRAINTS.get(sentence.words)
    if kind == "never":
        return Constraint("never", sentence.values[0]) if len(sentence.values[0]) == 1 else None
    return None if kind is None else Constraint(kind)  # type: ignore[arg-type]


# -- the tables, made once from the patterns of the language --


def _words(pattern: str, marks: dict[str, str]) -> Words:
    """The pattern's tokens, with marks or other words in its slots."""
    words: list[str] = []
    for index, part in enumerate(re.split(r"\{(\w)\}", pattern)):
        filled = marks[part] if index % 2 else part
        words.extend([filled] if filled.startswith("<") else tokens(filled))
    return tuple(words)


def _request_patterns() -> dict[Words, _Request]:
    found: dict[Words, _Request] = {}
    for operation, patterns in REQUESTS.items():
        for pattern in patterns:
            order = re.findall(r"\{(\w)\}", pattern)
            for x in (_LIST, _NAME, *LAST):
                for y in (_LIST, _NAME, *LAST) if "y" in order else ("",):
                    marks = {"x": x, "y": y, "k": _NUMBER}
                    marked = [slot for slot in order if marks[slot].startswith("<")]
                    slots = {slot: marked.index(slot) if slot in marked else -1 for slot in order}
                    found[_words(pattern, marks)] = _Request(operation, slots)
    return found


_REQUESTS = _request_patterns()
_NAMINGS = frozenset(_words(pattern, {"n": _NAME}) for pattern in NAMING)
_CONSTRAINTS = {
    _words(pattern, {"c": _LIST}): kind for kind, patterns in CONSTRAINTS.items() for pattern in patterns
}
