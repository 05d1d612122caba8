"""A contrast that a user's own async function writes (docs/how-to/own-contrasts.md).

The function gets a ContrastRequest and gives back a ContrastReply. All that it asks of engines goes
through the call log, so tokens are counted and seeds derive from the plan. What an engine does to a
request is none of the function's business; what the function itself does wrong becomes the branch's
reason to stop, with the place in its code.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from music_ray.config import ContrastConfig
from music_ray.engines.base import Completion, Engine, Prompt
from music_ray.generate.calls import BranchStopped, request_seed
from music_ray.generate.contrasts.draft import Draft, Point
from music_ray.generate.roles import Assistant
from music_ray.schema import Message

Asker = Literal["contrast", "assistant"]


@dataclass(frozen=True)
class ContrastRequest:
    """What a plugin gets: one place in a rejected branch at which a contrasted reply is to be written."""

    history: list[Message]
    """The rejected branch so far; ends on the user message that is not to be answered well. A copy."""
    turn: int
    """Generated turn, counted from 1 after the seed."""
    num_turns: int
    """How many turns are generated in all (generate.turns)."""
    chosen_reply: str | None
    """The good reply to the same user message, at the first contrasted turn and only with
    contrast.show_chosen_reply; else None."""
    attempt: int
    """0, and one more each time that the reply was empty or no contrast."""
    seed: int
    """For the plugin's own draws: a function of run seed, seed id, turn and attempt, so that a retried
    task draws the same."""
    _asking: _Asking = field(repr=False)

    @property
    def message(self) -> str:
        """The last message of the history."""
        return self.history[-1]["content"]

    async def ask(self, messages: Sequence[Message], *, role: Asker = "contrast") -> Completion:
        """One call of an engine; `.text` is what it wrote, `.finish_reason` 'stop' or 'length'.

        Args:
            messages: what it is to reply to; ends on a user message.
            role: contrast asks contrast's engine with contrast.sampling; assistant asks the assistant's
                with assistant.sampling and assistant.hint, as a clean call does.
        """
        return await self._asking.ask(messages, role)


@dataclass(frozen=True)
class ContrastReply:
    """What a plugin gives back."""

    text: str
    """The rejected reply; empty to be asked once more, up to contrast.max_attempts."""
    instruction: str = ""
    """What the reply answers instead of the user's message, for the record; empty when there is none."""


Plugin = Callable[[ContrastRequest], Awaitable[ContrastReply]]


@dataclass
class _Asking:
    """The calls of one attempt."""

    point: Point
    config: ContrastConfig
    engine: Engine
    assistant: Assistant
    made: list[tuple[int, str]] = field(default_factory=list)
    """Where in the log each call is, and what it wrote."""
    trouble: Exception | None = None
    """What an engine raised that is no matter of one request."""

    async def ask(self, messages: Sequence[Message], role: Asker) -> Completion:
        as_assistant = role == "assistant"
        point = self.point
        number = point.num_asked
        point.num_asked += 1
        try:
            completion = await point.log.ask(
                self.assistant.engine if as_assistant else self.engine,
                self.assistant.prompt(messages) if as_assistant else Prompt(list(messages)),
                self.assistant.config.sampling if as_assistant else self.config.sampling,
                turn=point.turn,
                branch="rejected",
                role=role,
                attempt=number,
                recorded=False,
            )
        except BranchStopped:
            raise
        except Exception as error:  # an engine that is dead stays so, whatever the plugin makes of it
            self.trouble = error
            raise
        # Nothing runs between the log's entry and this line, so the last entry is this call's.
        self.made.append((len(point.log.calls) - 1, completion.text))
        return completion

    def author_of(self, reply: str) -> int | None:
        """The last call whose text holds the reply."""
        return next((index for index, text in reversed(self.made) if reply in text), None)


async def draft_by_plugin(
    plugin: Plugin,
    point: Point,
    attempt: int,
    config: ContrastConfig,
    engine: Engine,
    assistant: Assistant,
    num_turns: int,
) -> Draft:
    """One attempt of a plugin.

    Raises:
        BranchStopped: plugin_failed, or what an engine call of the plugin raised.
        EngineDeadError: also where the plugin caught it.
    """
    asking = _Asking(point, config, engine, assistant)
    log = point.log
    request = ContrastRequest(
        history=[message.copy() for message in point.history],
        turn=point.turn,
        num_turns=num_turns,
        chosen_reply=point.chosen_reply,
        attempt=attempt,
        seed=request_seed(log.run_seed, log.seed_id, point.turn, "rejected", "plugin", attempt),
        _asking=asking,
    )
    try:
        answer = await plugin(request)
    except BranchStopped:
        raise
    except Exception as error:
        if asking.trouble is not None:
            raise asking.trouble from None
        raise BranchStopped("plugin_failed", _in_words(error)) from None
    if asking.trouble is not None:
        raise asking.trouble
    if not isinstance(answer, ContrastReply):
        raise BranchStopped("plugin_failed", f"it returned {type(answer).__name__}, not a ContrastReply")
    if not (isinstance(answer.text, str) and isinstance(answer.instruction, str)):
        raise BranchStopped("plugin_failed", "it returned a ContrastReply whose fields are no texts")
    reply = answer.text.strip()
    return Draft(answer.instruction.strip(), reply, asking.author_of(reply) if reply else None)


def _in_words(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
