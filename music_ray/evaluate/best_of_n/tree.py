"""All conversations of one prompt as a tree: each candidate, question and score is made once for all.

A candidate is a function of its history and number, a question of its history. So contenders select from the
same candidates, and hear the same user, for as long as their picks agree; and the candidates of N = 2 are the
first two of N = 8. The module does not know who picks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from music_ray.engines.base import Completion
from music_ray.evaluate.best_of_n.tools import RowScorer, Speakers
from music_ray.schema import Message, content_id

Conversation = list[Message]
Score = tuple[float | None, str]
"""A number, or None and the reason why there is none."""
_T = TypeVar("_T")


class Tree:
    """What is said after one prompt. Belongs to one event loop; close it when its row is done.

    Args:
        prompt: ends on a user message.
        scorers: reward models by name.
    """

    def __init__(
        self, prompt: Conversation, turns: int, speakers: Speakers, scorers: Mapping[str, RowScorer]
    ) -> None:
        self.prompt, self.turns = prompt, turns
        self._speakers, self._scorers = speakers, scorers
        self._made: dict[tuple[Any, ...], asyncio.Task[Any]] = {}
        self.tokens: Counter[str] = Counter()
        """prompt_tokens, cached_tokens, completion_tokens of all that was said."""
        self.said: Counter[str] = Counter()
        """How many replies and questions."""

    async def with_reply(self, history: Conversation, number: int) -> Conversation:
        """The history and a candidate for the reply to its last message."""
        text = await self._once(("reply", content_id(history), number), self._reply(history, number))
        return [*history, {"role": "assistant", "content": text}]

    async def with_question(self, history: Conversation) -> Conversation:
        """The history and what the user says to its last reply."""
        text = await self._once(("question", content_id(history)), self._question(history))
        return [*history, {"role": "user", "content": text}]

    async def whole(self, number: int) -> Conversation:
        """A conversation to its end, of the candidates with this number alone."""
        return await self._once(("whole", number), self._whole(number))

    async def score(self, model: str, conversation: Conversation) -> Score:
        """What a reward model gives a conversation that ends on a reply."""
        return await self._once(("score", model, content_id(conversation)), self._score(model, conversation))

    async def close(self) -> None:
        """Ends what nobody waits for any more: a contender has failed, and its row with it."""
        for task in self._made.values():
            task.cancel()
        await asyncio.gather(*self._made.values(), return_exceptions=True)

    async def _once(self, key: tuple[Any, ...], making: Coroutine[Any, Any, _T]) -> _T:
        task = self._made.get(key)
        if task is None:
            task = self._made[key] = asyncio.ensure_future(making)
        else:
            making.close()
        return await task

    async def _reply(self, history: Conversation, number: int) -> str:
        return self._count("replies", await self._speakers.reply(history, number))

    async def _question(self, history: Conversation) -> str:
        return self._count("questions", await self._speakers.question(history))

    def _count(self, kind: str, said: Completion) -> str:
        self.said[kind] += 1
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            self.tokens[name] += getattr(said, name)
        return said.text

    async def _whole(self, number: int) -> Conversation:
        conversation = self.prompt
        for turn in range(self.turns):
            if turn:
                conversation = await self.with_question(conversation)
            conversation = await self.with_reply(conversation, number)
        return conversation

    async def _score(self, model: str, conversation: Conversation) -> Score:
        row = {"id": 0, "messages": conversation, "reason": "", "detail": ""}
        scored = await self._scorers[model].work(row)
        return scored.score, scored.reason
