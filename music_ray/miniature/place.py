"""A turn of a conversation, and what a mistake may look at there.

Also what both sides of a pair must be: conversations in which every request makes sense. This module does not
know which mistakes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from music_ray.miniature.check import Turn, says_one_of, walk
from music_ray.miniature.language import LIST_OPERATIONS, MAX_NUMBER, Ask, Constraint, tokens
from music_ray.miniature.reading import parse
from music_ray.miniature.world import WORLD, Expectation, State, World, is_sensible, read_letters
from music_ray.schema import Message


@dataclass(frozen=True, slots=True)
class Place:
    """A turn whose message has a right reply."""

    turn: Turn
    ask: Ask
    expectation: Expectation
    state: State
    """Before the turn."""
    older_lists: list[str]
    """Lists that users wrote out and letters of replies before the turn, the oldest first."""

    @classmethod
    def of(cls, messages: Sequence[Message], number: int) -> Place | None:
        """The place at a turn, counted from 1; None where there is no such turn or nothing is right there."""
        older: list[str] = []
        for turn, state in walk(messages):
            if turn.number == number:
                if turn.ask is None or turn.expectation is None:
                    return None
                return cls(turn, turn.ask, turn.expectation, state, older)
            older.extend(_lists(turn))
        return None

    @property
    def operation(self) -> str:
        """What the user asks for."""
        return self.ask.instruction.operation

    @property
    def constraint(self) -> Constraint | None:
        """What turn 1 asks of every reply."""
        return self.state.constraint or self.ask.constraint

    @property
    def letters(self) -> str:
        """The letters of a right reply."""
        return read_letters(self.turn.right_reply or "")

    @property
    def plain(self) -> str | int:
        """A right reply's letters or number, without case and marks."""
        return self.expectation.result if isinstance(self.expectation.result, int) else self.letters

    @property
    def is_list(self) -> bool:
        """Whether a right reply is a list of letters that later requests can take up."""
        return self.operation in LIST_OPERATIONS

    def is_usable(self, reply: str, world: World = WORLD) -> bool:
        """Whether a reply is wrong here, and not so in a way that could be seen without reading the request.

        It is no copy of what the request is about, and neither empty nor longer than right replies are.
        """
        if says_one_of(reply, self.expectation.options):
            return False
        letters = read_letters(reply)
        if not letters:
            return any(token.isdecimal() and int(token) <= MAX_NUMBER for token in tokens(reply))
        return len(letters) <= world.max_letters and letters not in (self.expectation.x, self.expectation.y)


def is_sound(messages: Sequence[Message], world: World = WORLD) -> bool:
    """Whether every request makes sense where it stands, as those of the generator do (is_sensible)."""
    return all(
        turn.ask is not None
        and is_sensible(turn.ask, turn.expectation, state.constraint, world.max_letters)
        and not (turn.ask.name and turn.ask.instruction.operation not in LIST_OPERATIONS)
        for turn, state in walk(messages)
    )


def spoil(messages: Sequence[Message], number: int, reply: str) -> list[Message]:
    """The conversation with another reply at a turn, and later replies that are right given that one.

    A later reply that is right anyway stays as it is.
    """
    copied = [message.copy() for message in messages]
    copied[reply_at(number)]["content"] = reply
    return rederived(copied, after=number)


def rederived(messages: Sequence[Message], *, after: int) -> list[Message]:
    """The conversation in which every reply after a turn is right given what stands before it."""
    copied = [message.copy() for message in messages]
    state = State()
    for index in range(1, len(copied), 2):
        ask = parse(copied[index - 1]["content"])
        expectation = None if ask is None else state.expectation(ask)
        reply = copied[index]["content"]
        right = expectation is not None and says_one_of(reply, expectation.options)
        if expectation is not None and not right and index > reply_at(after):
            copied[index]["content"], right = expectation.options[0], True
        state.add(ask, copied[index]["content"], right=right)
    return copied


def reply_at(number: int) -> int:
    """Where the reply of a turn stands among the messages of a conversation that alternates."""
    return 2 * number - 1


def _lists(turn: Turn) -> list[str]:
    """Letters of a turn that a later reply could take up by mistake."""
    found = []
    if turn.ask is not None:
        instruction = turn.ask.instruction
        sources = [source for source in (instruction.x, instruction.y) if source is not None]
        found = [source.value for source in sources if source.kind == "list"]
    return [*found, read_letters(turn.reply)]
