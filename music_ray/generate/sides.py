"""The two branches of one rollout after they have parted, and what each needs to know of the other.

Neither goes on past the turn at which the other stopped: those turns would be cut off again. A rejected
branch may wait for what the chosen one says. This module does not know what is said or who says it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from music_ray.generate.calls import BranchStopped
from music_ray.schema import Contrast, Message


@dataclass
class Grown:
    """A branch as far as it came."""

    messages: list[Message]
    turns: int
    """Generated turns that are complete, those before the branches parted included."""
    contrasts: list[Contrast] = field(default_factory=list)
    stopped: BranchStopped | None = None


class Sides:
    """Both branches of a rollout, from the turn on at which they part."""

    def __init__(self, shared: list[Message], first: int, num_turns: int) -> None:
        """
        Args:
            shared: what both begin with; ends on the user message that both answer.
            first: the generated turn in which they do.
            num_turns: T.
        """
        self.first, self.num_turns = first, num_turns
        self.chosen = Grown(list(shared), first - 1)
        self.rejected = Grown(list(shared), first - 1)
        self._reply_at = len(shared)
        self._last_turn = num_turns
        self._chosen_ended = False
        self._news: asyncio.Future[None] | None = None

    @contextmanager
    def growing(self, grown: Grown) -> Iterator[None]:
        """A branch's whole life; that it stops is noted, and where."""
        try:
            yield
        except BranchStopped as stop:
            grown.stopped = stop
        self._last_turn = min(self._last_turn, grown.turns)
        if grown is self.chosen:
            self._chosen_ended = True
            self._tell()

    def turns(self) -> Iterator[int]:
        """The turns of one branch, as long as the other one has not stopped before them."""
        for turn in range(self.first, self.num_turns + 1):
            if not self.may_go_on(turn):
                return
            yield turn

    def may_go_on(self, turn: int) -> bool:
        """Whether a turn would stay in the row: False when the other branch has stopped before it."""
        return turn <= self._last_turn

    def say(self, grown: Grown, role: str, text: str) -> None:
        """Adds a message to a branch; a reply completes its turn."""
        grown.messages.append({"role": role, "content": text})
        if role == "assistant":
            grown.turns += 1
        self._tell()

    async def chosen_reply(self) -> str | None:
        """The chosen reply to the message that both branches answer; None when there will be none."""
        return await self._chosen_message(self._reply_at)

    async def chosen_question(self, turn: int) -> str | None:
        """The user message that opens a later turn of the chosen branch; None when there will be none."""
        return await self._chosen_message(self._reply_at + 2 * (turn - self.first) - 1)

    async def _chosen_message(self, index: int) -> str | None:
        messages = self.chosen.messages
        while len(messages) <= index:
            if self._chosen_ended:
                return None
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return messages[index]["content"]

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def first_stop(self) -> BranchStopped | None:
        """Why the rollout ended before turn T: the stop of the branch that came less far."""
        branches = sorted((self.chosen, self.rejected), key=lambda grown: grown.turns)
        return branches[0].stopped or branches[1].stopped

    def cut_to_equal_turns(self, context_length: int) -> int:
        """Cuts both branches to the turns that both have: length must not give the label away.

        Raises:
            BranchStopped: they never got past the turn at which they part.
        """
        turns = min(self.chosen.turns, self.rejected.turns)
        if turns < self.first:
            nothing = BranchStopped("no_contrast", "the branches have no turn in which they differ")
            raise self.first_stop() or nothing
        for grown in (self.chosen, self.rejected):
            # After the context: a reply, then a question and a reply for each further turn.
            del grown.messages[context_length + 2 * turns - 1 :]
            grown.contrasts = [contrast for contrast in grown.contrasts if contrast.turn <= turns]
        return turns
