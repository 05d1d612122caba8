"""What a contrast mode is given, and what one attempt of it gives back."""

from __future__ import annotations

from dataclasses import dataclass

from music_ray.generate.calls import CallLog
from music_ray.schema import Message


@dataclass(slots=True)
class Point:
    """The place in a rejected branch at which a contrasted reply is to be written."""

    history: list[Message]
    """The rejected branch so far; ends on the user message that is not to be answered."""
    log: CallLog
    turn: int
    """Generated turn, counted from 1 after the seed."""
    chosen_reply: str | None
    """The good reply to the same user message, where the model may see it."""
    num_asked: int = 0
    """Calls that a plugin has made here, over all attempts: each has a seed of its own."""

    @property
    def message(self) -> str:
        """The user message that is not to be answered."""
        return self.history[-1]["content"]


@dataclass(frozen=True, slots=True)
class Draft:
    """One attempt. Empty texts are what could not be had."""

    instruction: str = ""
    reply: str = ""
    call: int | None = None
    """Where in the log the call is that wrote the reply; None when no call did."""
    complete: bool = False
    """The reply's end was seen, although its call may have run on to the token limit."""
