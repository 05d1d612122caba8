"""The instruction language of the miniature: what it can say, and how it is written.

    Good. Sort red. Call it blue.         mood? request name? constraint?
    Reverse d b a c. Always use upper case.

reading.py reads it by the same patterns. This module knows words, not what a right reply is (world.py).

Tokens are whole words, single letters, numbers and signs: `tokens` splits a text, `text` joins tokens as
English is spaced, and `vocabulary` lists all there are. A word-level tokenizer fits: no token is part of a
word, and decoding with a space before every token but . , ! ? gives the text back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ALPHABET = "abcdefghij"
VOWELS = "aei"
NAMES = ("red", "blue", "green", "gold", "pink", "grey")
"""What the user calls an answer, to come back to it later."""
NONE = "none"
"""The reply that holds no letters."""
MAX_NUMBER = 20
"""The largest number that the vocabulary has."""

CONTENT = ("Good.", "That is right.", "Thanks, that is fine.")
"""What a content user may say first. Each has as many tokens as the complaint at its place."""
COMPLAINTS = ("No.", "That is wrong.", "Sorry, that is bad.")

LIST_OPERATIONS = ("sort", "reverse", "double", "drop_vowels", "shift", "first", "join")
"""Operations whose reply is a list of letters that a later request can take up."""
OPERATIONS = (*LIST_OPERATIONS, "count", "favourite")

REQUESTS: dict[str, tuple[str, ...]] = {
    "sort": ("Sort {x}.", "Please sort {x}.", "Put {x} in order."),
    "reverse": ("Reverse {x}.", "Please reverse {x}.", "Write {x} backwards."),
    "double": ("Double each letter of {x}.", "Write each letter of {x} twice."),
    "drop_vowels": ("Drop the vowels of {x}.", "Write {x} without vowels."),
    "shift": ("Move each letter of {x} up by one.", "Replace each letter of {x} by the next one."),
    "first": ("Take the first {k} of {x}.", "Keep only the first {k} of {x}."),
    "join": ("Join {x} and {y}.", "Put {y} after {x}.", "Add {y} to the end of {x}."),
    "count": ("Count the letters of {x}.", "How many letters are in {x}?"),
    "favourite": ("Which letter of {x} do you like best?", "Say which letter of {x} you like best."),
}
LAST = ("it", "that", "your last answer")
NAMING = ("Call it {n}.", "Call the answer {n}.")
CONSTRAINTS: dict[str, tuple[str, ...]] = {
    "upper": ("Always use upper case.", "Write every answer in upper case."),
    "never": ("Never use the letter {c}.", "Leave the letter {c} out of every answer."),
    "mark": ("End every answer with an exclamation mark.", "Always end with an exclamation mark."),
}
CONTRAST_TEMPLATE = """{{ message }}
Do another request instead. Write it in <modified_instruction> and its answer in <reply>.
"""
"""contrast.template of the miniature, for contrast.mode joint: the built-in prompt has more words than a
model of this size can learn."""
TAGS = ("<modified_instruction>", "</modified_instruction>", "<reply>", "</reply>")
"""What the contrast prompt asks for (music_ray/generate/contrasts/tags.py): one token each."""

TOKEN_PATTERN = r"</?[a-z_]+>|[A-Za-z]+|[0-9]+|\S"  # noqa: S105  (no password)
"""A word, a tag, a number or a sign."""
_TOKEN = re.compile(TOKEN_PATTERN)
_SPACED_SIGN = re.compile(r" ([.,!?])")


@dataclass(frozen=True, slots=True)
class Source:
    """What a request is about."""

    kind: Literal["list", "last", "name"]
    """list: letters that the user writes out. last: the reply before. name: the reply of that name."""
    value: str = ""
    """The letters, without spaces, or the name."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the user wants done."""

    operation: str
    x: Source
    y: Source | None = None
    """join: what comes after x."""
    k: int = 0
    """first: how many letters."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the first message asks of every reply."""

    kind: Literal["upper", "never", "mark"]
    letter: str = ""
    """never: the letter that no reply may hold."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A user message."""

    instruction: Instruction
    mood: str = ""
    """One of CONTENT or COMPLAINTS, about the reply before; or nothing."""
    name: str = ""
    """What the reply to this message is called from now on."""
    constraint: Constraint | None = None


def tokens(text: str) -> list[str]:
    """The tokens of a text; white space only separates."""
    return _TOKEN.findall(text)


def text(parts: Sequence[str]) -> str:
    """Tokens as text: a space between them, but none before . , ! ?"""
    return _SPACED_SIGN.sub(r"\1", " ".join(parts))


def spaced(letters: str) -> str:
    """'dbac' as 'd b a c'."""
    return " ".join(letters)


def render_instruction(instruction: Instruction, rng: random.Random) -> str:
    """The request alone, in words that rng chooses."""
    pattern = rng.choice(REQUESTS[instruction.operation])
    y = "" if instruction.y is None else _phrase(instruction.y, rng)
    return pattern.format(x=_phrase(instruction.x, rng), y=y, k=instruction.k)


def render(ask: Ask, rng: random.Random) -> str:
    """A whole user message, in words that rng chooses."""
    return wrap(render_instruction(ask.instruction, rng), ask, rng)


def wrap(request: str, ask: Ask, rng: random.Random) -> str:
    """A request with what stands around it in the message `ask`."""
    parts = [ask.mood, request]
    if ask.name:
        parts.append(rng.choice(NAMING).format(n=ask.name))
    if ask.constraint is not None:
        parts.append(rng.choice(CONSTRAINTS[ask.constraint.kind]).format(c=ask.constraint.letter))
    return " ".join(part for part in parts if part)


def vocabulary() -> list[str]:
    """Every token that messages, replies and the contrast prompt's tags can hold, sorted."""
    found = {*ALPHABET, *ALPHABET.upper(), *NAMES, *TAGS, NONE, "!", "."}
    found.update(str(number) for number in range(MAX_NUMBER + 1))
    patterns = [*LAST, *NAMING, *CONTENT, *COMPLAINTS, CONTRAST_TEMPLATE.partition("\n")[2]]
    for group in (*REQUESTS.values(), *CONSTRAINTS.values()):
        patterns.extend(group)
    for pattern in patterns:
        found.update(tokens(re.sub(r"\{\w\}", " ", pattern)))
    return sorted(found)


def _phrase(source: Source, rng: random.Random) -> str:
    if source.kind == "last":
        return rng.choice(LAST)
    return spaced(source.value) if source.kind == "list" else source.value
