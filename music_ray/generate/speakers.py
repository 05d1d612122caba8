"""Assistant and user simulator for conversations that grow as trees: a history decides what is said next.

A request's seed is a hash of the history that it goes on from, so whoever comes to the same history hears the
same. The roles are those of the rollouts; this module does not know who picks replies, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from music_ray.config import RunConfig
from music_ray.engines import make_engines
from music_ray.engines.base import Completion, RequestError, RoleEngines
from music_ray.generate.calls import BranchStopped, CallLog
from music_ray.generate.roles import Assistant, UserSimulator
from music_ray.jobs.counting import CountingEngine
from music_ray.jobs.metrics import Metrics
from music_ray.schema import Message, content_id

ATTEMPTS = 3
"""Draws of a reply, each with a seed of its own, before an empty one is taken for what the model says."""


class Speakers:
    """The two who talk.

    Args:
        counts: calls and tokens are added to it.
        engines: instead of the configured ones, which are then not started.
    """

    def __init__(
        self,
        config: RunConfig,
        counts: Counter[str],
        metrics: Metrics,
        engines: RoleEngines | None = None,
    ) -> None:
        engines = engines or make_engines(config)
        self._seed = config.seed
        self._assistant = Assistant(
            config.assistant, CountingEngine(engines.assistant, "assistant", counts, metrics)
        )
        self._user = UserSimulator(config.user, CountingEngine(engines.user, "user", counts, metrics))

    async def reply(self, history: Sequence[Message], number: int) -> Completion:
        """One of the assistant's candidates for the next reply, with the tokens of all its draws.

        Args:
            history: ends on a user message.
            number: which candidate, from 0.

        Raises:
            RequestError: there is none: empty_reply, context_full, or the engine's own reason.
            EngineDeadError: the engine is gone.
        """
        log = CallLog(self._seed, 0)
        for attempt in range(ATTEMPTS):
            log.seed_id = content_id([list(history), number, attempt])
            try:
                text = await self._assistant.reply(history, log, turn=_turn(history), branch="shared")
                return _summed(text, log)
            except BranchStopped as stop:
                if stop.reason != "empty_reply" or attempt + 1 == ATTEMPTS:
                    raise RequestError(stop.detail, stop.reason) from None
        raise AssertionError("the last attempt returns or raises")

    async def question(self, history: Sequence[Message]) -> Completion:
        """The user's next message, with the tokens of all its draws.

        Args:
            history: ends on a reply.

        Raises:
            RequestError: there is none: empty_user_message, context_full, or the engine's own reason.
            EngineDeadError: the engine is gone.
        """
        log = CallLog(self._seed, content_id(list(history)))
        try:
            text = await self._user.next_message(history, log, turn=_turn(history), branch="shared")
        except BranchStopped as stop:
            raise RequestError(stop.detail, stop.reason) from None
        return _summed(text, log)

    def describe(self) -> dict[str, str]:
        """`engine`, `model` and `model_revision` of the assistant, and the user's as `user_model`."""
        return {
            **self._assistant.engine.describe(),
            "user_model": self._user.engine.describe()["model"],
        }


def _turn(history: Sequence[Message]) -> int:
    """The turn that a reply to the history belongs to, or that its last reply belongs to."""
    return sum(message["role"] == "user" for message in history)


def _summed(text: str, log: CallLog) -> Completion:
    last = log.calls[-1]
    made = Completion(text, last.finish_reason, 0, 0, 0)
    return replace(
        made,
        **{
            name: sum(getattr(call, name) for call in log.calls)
            for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
        },
    )
