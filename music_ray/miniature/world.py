"""The miniature's world: what a right reply is, and conversations in which every reply is right.

The state of a conversation is what stands in it: a follow-up takes up the reply that was really given, also
when that was wrong. `State` is the one place that says what is right; the judge (check.py) and the
generator use it alike. Every conversation is a function of its seed and of a World.

This module does not know mistakes, suites or models.
"""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass, field
from typing import Literal

from music_ray.miniature.language import (
    ALPHABET,
    COMPLAINTS,
    CONTENT,
    LIST_OPERATIONS,
    MAX_NUMBER,
    NAMES,
    NONE,
    VOWELS,
    Ask,
    Constraint,
    Instruction,
    Source,
    render,
    spaced,
    tokens,
)
from music_ray.schema import Message

Split = Literal["train", "dev", "suites"]
_SPLITS: dict[Split, range] = {"train": range(0, 70), "dev": range(70, 80), "suites": range(80, 100)}
"""Percentages of the lists that users write out, by a hash of the list: no list is given in two splits."""


@dataclass(frozen=True, slots=True)
class World:
    """How hard the world is. Suites and training data of one comparison share one World."""

    list_operations: tuple[str, ...] = LIST_OPERATIONS
    """Requests whose reply is a list, each as often as the state of the conversation allows."""
    count_share: float = 0.07
    """Requests for a number …"""
    choice_share: float = 0.08
    """… and for a choice (favourite). No later request takes up such a reply …"""
    again_share: float = 0.2
    """… but this is the share of the requests after a choice that ask for one again."""
    list_length: tuple[int, int] = (3, 5)
    """Letters of a list that the user writes out."""
    max_letters: int = 8
    """The longest reply."""
    new_list_share: float = 0.1
    """Requests after the first that bring a list of their own …"""
    name_share: float = 0.25
    """… and that are about a named reply, where there is one; the others are about the reply before."""
    naming_share: float = 0.4
    """Messages that name their reply."""
    constraint_share: float = 0.5
    """Conversations whose first message asks something of every reply."""
    content_share: float = 0.15
    """Later messages that begin with a good word …"""
    complaint_share: float = 0.05
    """… or with a complaint: moods say nothing about the replies."""


WORLD = World()


@dataclass(frozen=True, slots=True)
class Expectation:
    """What would be right in answer to a request."""

    x: str
    """The letters that the request is about."""
    y: str
    """join: those that come after them."""
    result: str | int
    """The letters before the constraint is applied, or a number; favourite: the letters to choose from."""
    options: tuple[str, ...]
    """Every right reply; there are several only where the user asks for a choice."""


@dataclass
class State:
    """What a conversation holds so far, as far as it matters for what comes next."""

    constraint: Constraint | None = None
    turns: int = 0
    last: str | None = None
    """Letters of the reply before."""
    names: dict[str, str] = field(default_factory=dict)
    """Letters of the replies that have a name."""
    choices: list[tuple[str, str]] = field(default_factory=list)
    """Each letter that was liked best, with the letters it was chosen from."""

    def expectation(self, ask: Ask) -> Expectation | None:
        """What is right in answer to `ask`; None where it is about a reply that does not exist."""
        instruction = ask.instruction
        x = self._letters(instruction.x)
        y = "" if instruction.y is None else self._letters(instruction.y)
        if x is None or y is None or (ask.constraint is not None and self.turns):
            return None
        constraint = ask.constraint or self.constraint
        if instruction.operation == "favourite":
            letters = self._likeable(x, constraint)
            options = tuple(written(letter, constraint) for letter in letters or [""])
            return Expectation(x, y, letters, options)
        result = apply(instruction, x, y)
        return Expectation(x, y, result, (written(result, constraint),))

    def add(self, ask: Ask | None, reply: str, *, right: bool) -> None:
        """Takes in one more turn as it stands in the conversation."""
        letters = read_letters(reply)
        if ask is not None:
            if right and ask.instruction.operation == "favourite" and len(letters) == 1:
                self.choices.append((letters, self._letters(ask.instruction.x) or ""))
            self.constraint = self.constraint or ask.constraint
            if ask.name:
                self.names[ask.name] = letters
        self.last = letters
        self.turns += 1

    def _letters(self, source: Source) -> str | None:
        if source.kind == "list":
            return source.value
        return self.last if source.kind == "last" else self.names.get(source.value)

    def _likeable(self, x: str, constraint: Constraint | None) -> str:
        """The letters of x that contradict no earlier choice; all of them where each contradicts one."""
        letters = "".join(dict.fromkeys(_allowed(x, constraint)))
        beaten = {
            letter for best, among in self.choices if best in letters for letter in among if letter != best
        }
        return "".join(letter for letter in letters if letter not in beaten) or letters


def apply(instruction: Instruction, x: str, y: str = "") -> str | int:
    """The result of an operation on letters, before any constraint.

    Raises:
        ValueError: favourite, which has no single result, or no operation of this world.
    """
    match instruction.operation:
        case "sort":
            return "".join(sorted(x))
        case "reverse":
            return x[::-1]
        case "double":
            return "".join(letter * 2 for letter in x)
        case "drop_vowels":
            return "".join(letter for letter in x if letter not in VOWELS)
        case "shift":
            return "".join(shifted(letter, 1) for letter in x)
        case "first":
            return x[: instruction.k]
        case "join":
            return x + y
        case "count":
            return len(x)
    raise ValueError(f"no result of {instruction.operation!r}")


def shifted(letter: str, by: int) -> str:
    """The letter so many places further on; after the last comes the first."""
    return ALPHABET[(ALPHABET.index(letter) + by) % len(ALPHABET)]


def written(result: str | int, constraint: Constraint | None) -> str:
    """A result as a reply that keeps the constraint."""
    return styled(_allowed(result, constraint) if isinstance(result, str) else result, constraint)


def styled(result: str | int, constraint: Constraint | None) -> str:
    """A result in the case and with the mark that the constraint asks for; no letter is left out."""
    body = str(result) if isinstance(result, int) else spaced(result) or NONE
    kind = None if constraint is None else constraint.kind
    if kind == "upper" and body != NONE:
        body = body.upper()
    return body + "!" if kind == "mark" else body


def _allowed(letters: str, constraint: Constraint | None) -> str:
    if constraint is None or constraint.kind != "never":
        return letters
    return letters.replace(constraint.letter, "")


def read_letters(reply: str) -> str:
    """The letters that a reply holds, in lower case, whatever else it says."""
    return "".join(token.lower() for token in tokens(reply) if len(token) == 1 and token.lower() in ALPHABET)


def split_of(letters: str) -> Split:
    """The split whose users may write out this list."""
    bucket = _bucket(letters)
    return next(split for split, buckets in _SPLITS.items() if bucket in buckets)


@functools.lru_cache(maxsize=1 << 18)
def _bucket(letters: str) -> int:
    return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:8], "big") % 100


# -- conversations in which every reply is right --


def conversation(
    seed: int,
    num_turns: int,
    *,
    split: Split = "train",
    world: World = WORLD,
    operations: dict[int, str] | None = None,
) -> list[Message]:
    """A conversation of right replies: a function of its arguments alone.

    Args:
        num_turns: user messages, each with its reply.
        split: which lists its user may write out.
        operations: what is asked for at some turns, counted from 1; drawn at the others.
    """
    rng = random.Random(f"miniature {split} {seed}")
    state = State()
    asks: list[Ask] = []
    messages: list[Message] = []
    for turn in range(1, num_turns + 1):
        ask = draw_ask(state, asks, rng, split, world, (operations or {}).get(turn, ""))
        expectation = state.expectation(ask)
        assert expectation is not None
        reply = rng.choice(expectation.options)
        messages.append({"role": "user", "content": render(ask, rng)})
        messages.append({"role": "assistant", "content": reply})
        state.add(ask, reply, right=True)
        asks.append(ask)
    return messages


def draw_ask(
    state: State, asks: list[Ask], rng: random.Random, split: Split, world: World, operation: str = ""
) -> Ask:
    """A next user message that makes sense after those before.

    Args:
        asks: the messages before, oldest first.
        operation: what it asks for; drawn when empty.
    """
    mood, name, kind = "", "", ""
    if asks:
        drawn = rng.random()
        if drawn < world.content_share:
            mood = rng.choice(CONTENT)
        elif drawn < world.content_share + world.complaint_share:
            mood = rng.choice(COMPLAINTS)
    elif rng.random() < world.constraint_share:
        kind = rng.choice(("upper", "never", "mark"))
    free = [one for one in NAMES if one not in state.names]
    if free and rng.random() < world.naming_share:
        name = rng.choice(free)
    while True:
        drawn_operation = operation or _next_operation(state, rng, world)
        instruction = _draw_instruction(drawn_operation, state, asks, rng, split, world)
        constraint = _draw_constraint(kind, instruction.x.value, rng)
        nameable = instruction.operation in LIST_OPERATIONS
        ask = Ask(instruction, mood, name if nameable else "", constraint)
        if is_sensible(ask, state.expectation(ask), state.constraint, world.max_letters):
            return ask


def is_sensible(
    ask: Ask, expectation: Expectation | None, constraint: Constraint | None, max_letters: int
) -> bool:
    """Whether a request changes what it is about, and its reply is neither empty nor too long.

    A reply that equals the list it was made from would be right by doing nothing, and only ever right or
    only ever wrong in some suite: so neither side of any pair has one.
    """
    if expectation is None:
        return False
    operation, x = ask.instruction.operation, expectation.x
    if ask.instruction.x == ask.instruction.y:
        return False
    if operation == "count":
        return 2 <= len(x) <= MAX_NUMBER
    if operation == "favourite":
        return len(set(_allowed(x, ask.constraint or constraint))) > 1
    letters = read_letters(expectation.options[0])
    if operation == "first" and not 1 < ask.instruction.k < len(x):
        return False
    return 2 <= len(letters) <= max_letters and letters not in (x, expectation.y) and len(x) > 1


def draw_list(rng: random.Random, split: Split, world: World) -> str:
    """Letters that a user of this split may write out; letters may recur."""
    while True:
        length = rng.randint(*world.list_length)
        letters = "".join(rng.choice(ALPHABET) for _ in range(length))
        if split_of(letters) == split:
            return letters


def draw_operation(rng: random.Random, world: World) -> str:
    """What a user asks for, before it is known whether that makes sense."""
    drawn = rng.random()
    if drawn < world.count_share:
        return "count"
    return (
        "favourite" if drawn < world.count_share + world.choice_share else rng.choice(world.list_operations)
    )


def _next_operation(state: State, rng: random.Random, world: World) -> str:
    if state.choices and rng.random() < world.again_share:
        return "favourite"
    return draw_operation(rng, world)


def _draw_instruction(
    operation: str,
    state: State,
    asks: list[Ask],
    rng: random.Random,
    split: Split,
    world: World,
) -> Instruction:
    if operation == "favourite":
        return Instruction("favourite", Source("list", _list_to_choose_from(state, rng, split, world)))
    x = _draw_source(asks, rng, split, world)
    if operation == "join":
        y = _draw_source(asks, rng, split, world)
        first, second = rng.sample((x, y), 2)
        return Instruction("join", first, second)
    return Instruction(operation, x, k=rng.randint(2, 4) if operation == "first" else 0)


def _draw_constraint(kind: str, letters: str, rng: random.Random) -> Constraint | None:
    """A constraint of the first message; the forbidden letter is mostly one of its list."""
    if kind == "never":
        return Constraint("never", rng.choice(letters if rng.random() < 0.7 else ALPHABET))
    return Constraint(kind) if kind else None  # type: ignore[arg-type]


def _draw_source(asks: list[Ask], rng: random.Random, split: Split, world: World) -> Source:
    names = [ask.name for ask in asks if ask.name]
    takes_up = bool(asks) and asks[-1].instruction.operation in LIST_OPERATIONS
    drawn = rng.random()
    if names and drawn < world.name_share:
        return Source("name", rng.choice(names))
    if takes_up and drawn < 1 - world.new_list_share:
        return Source("last")
    if names and not takes_up and drawn < 1 - world.new_list_share:
        return Source("name", rng.choice(names))
    return Source("list", draw_list(rng, split, world))


def _list_to_choose_from(state: State, rng: random.Random, split: Split, world: World) -> str:
    """New letters, or two times in three those of an earlier choice in another order."""
    if state.choices and rng.random() < 2 / 3:
        letters = list(state.choices[0][1])
        for _ in range(30):
            rng.shuffle(letters)
            found = "".join(letters)
            if split_of(found) == split and found != state.choices[0][1]:
                return found
    return draw_list(rng, split, world)
