"""The exact judge: which replies of a conversation are right, given what stands in it.

A follow-up is held against the reply that was really given before it, also when that was wrong: one early
error is one wrong turn. What can't be read is wrong, never an exception. This module does not know where a
conversation comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from music_ray.judge.verdict import Verdict
from music_ray.miniature.language import Ask, tokens
from music_ray.miniature.reading import parse
from music_ray.miniature.world import Expectation, State
from music_ray.schema import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, its reply, and what is to be said of it."""

    number: int
    """Counted from 1."""
    message: str
    reply: str
    ask: Ask | None
    """What the user asked; None where the message is not of this language."""
    expectation: Expectation | None
    """What would be right; None where nothing could be: a message not understood, or about no reply."""
    right: bool

    @property
    def right_reply(self) -> str | None:
        """The reply itself where it is right, else a right one; None where nothing would be right."""
        if self.right:
            return self.reply
        return None if self.expectation is None else self.expectation.options[0]


def examine(conversation: Sequence[Message]) -> list[Turn]:
    """Every turn that has a reply, with its verdict.

    A user message that nobody answered is no turn. A reply that no user message stands before is a wrong one.
    """
    return [turn for turn, _ in walk(conversation)]


def walk(conversation: Sequence[Message]) -> Iterator[tuple[Turn, State]]:
    """Every turn as in `examine`, with the state before it, which goes on once the next turn is asked for."""
    state = State()
    number = 0
    message = ""
    for one in conversation:
        if one["role"] != "assistant":
            message = _content(one)
            continue
        reply = _content(one)
        ask = parse(message)
        expectation = None if ask is None else state.expectation(ask)
        right = expectation is not None and says_one_of(reply, expectation.options)
        number += 1
        yield Turn(number, message, reply, ask, expectation, right), state
        state.add(ask, reply, right=right)
        message = ""


def says_one_of(reply: str, options: Sequence[str]) -> bool:
    """Whether a reply is one of the right ones; only white space does not count."""
    said = tokens(reply)
    return any(said == tokens(option) for option in options)


def wrong_turns(conversation: Sequence[Message]) -> list[int]:
    """Numbers, from 1, of the turns whose replies are wrong."""
    return [turn.number for turn in examine(conversation) if not turn.right]


def num_right(conversation: Sequence[Message]) -> int:
    """How many replies are right."""
    return sum(turn.right for turn in examine(conversation))


def is_understood(conversation: Sequence[Message]) -> bool:
    """Whether every user message that was answered asks for something that has a right reply."""
    return all(turn.expectation is not None for turn in examine(conversation))


def compare(a: Sequence[Message], b: Sequence[Message]) -> Verdict:
    """The judge's verdict on two conversations: the larger share of right replies wins.

    Never invalid: a conversation without replies has a share of 0.
    """
    left, right = _share(a), _share(b)
    if left == right:
        return Verdict.TIE
    return Verdict.A if left > right else Verdict.B


def share_right(messages: Sequence[Message], answer: str | None = None) -> float:
    """The share of right replies: best_of_n.checker=music_ray.miniature.check:share_right."""
    del answer  # a checker gets one; here the conversation says it all
    return float(_share(messages))


def _share(conversation: Sequence[Message]) -> Fraction:
    turns = examine(conversation)
    return Fraction(sum(turn.right for turn in turns), max(len(turns), 1))


def _content(message: Message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else ""
