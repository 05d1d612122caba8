"""The method: one seed grows into two branches (design, steps 2 and 3; MUSIC's Algorithm 1).

    context ── one branch up to the first contrast turn, generated once ──┬── chosen
                                                                          └── rejected

A rollout is one coroutine. Its branches run beside each other after they part, and nothing waits
for any other rollout. This module does not know Ray, files or which engine answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from music_ray import prompts
from music_ray.config import RunConfig, SamplingConfig
from music_ray.engines.base import Engine, RoleEngines
from music_ray.generate.calls import Branch, BranchStopped, CallLog
from music_ray.generate.contrast import Contraster
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.roles import Assistant, UserSimulator
from music_ray.generate.schedule import contrast_turns
from music_ray.schema import Call, Contrast, Message, Rollout, SeedContext, Writer


@dataclass(frozen=True)
class Cast:
    """All that a rollout needs besides its seed."""

    config: RunConfig
    assistant: Assistant
    user: UserSimulator
    contraster: Contraster
    run_epoch: int
    writers: list[Writer]
    """Who plays the roles, recorded in every row."""

    @classmethod
    def of(cls, config: RunConfig, engines: RoleEngines, pool: NeighbourPool | None, run_epoch: int) -> Cast:
        """The cast that a configuration describes."""
        assistant = Assistant(config.assistant, engines.assistant)
        user = UserSimulator(config.user, engines.user)
        contraster = Contraster(config.contrast, engines.contrast, assistant, user, pool)
        writers = [
            _writer("assistant", engines.assistant, config.assistant.sampling),
            _writer("user", engines.user, config.user.sampling),
            _writer("contrast", engines.contrast, config.contrast.sampling),
        ]
        return cls(config, assistant, user, contraster, run_epoch, writers)


@dataclass
class _Grown:
    """A branch as far as it came."""

    messages: list[Message]
    contrasts: list[Contrast]
    turns: int
    """Generated turns that are complete, those before the branches parted included."""
    stopped: BranchStopped | None = None


async def roll_out(seed: SeedContext, cast: Cast) -> Rollout:
    """Both branches of one seed; a row comes back whatever happens to its requests.

    Raises:
        EngineDeadError: the engine is gone; the row is not decided.
    """
    started = time.monotonic()
    config = cast.config
    spoiled = contrast_turns(config.contrast.schedule, config.generate.turns, config.seed, seed.id)
    logs: dict[Branch, CallLog] = {
        branch: CallLog(config.seed, seed.id) for branch in ("shared", "chosen", "rejected")
    }
    first = min(spoiled)
    try:
        shared = await _shared_beginning(seed.messages, first, cast, logs["shared"])
        chosen, rejected = await _both(
            _grow(shared, first, frozenset(), cast, logs["chosen"], "chosen"),
            _grow(shared, first, spoiled, cast, logs["rejected"], "rejected"),
        )
        turns = _cut_to_equal_turns(chosen, rejected, first, len(seed.messages))
        stopped = chosen.stopped or rejected.stopped
        status, reason, detail = "ok", stopped.reason if stopped else "", stopped.detail if stopped else ""
    except BranchStopped as stop:
        chosen, rejected, turns, first = _Grown([], [], 0), _Grown([], [], 0), 0, 0
        status, reason, detail = "error", stop.reason, stop.detail
    calls = [call for log in logs.values() for call in log.calls]
    return _row(seed, cast, status, reason, detail, chosen, rejected, turns, first, calls, started)


async def _shared_beginning(context: list[Message], first: int, cast: Cast, log: CallLog) -> list[Message]:
    """The one branch before the first contrast turn: ends on the user message that both sides answer."""
    messages = list(context)
    for turn in range(1, first):
        reply = await cast.assistant.reply(messages, log, turn=turn, branch="shared")
        messages.append({"role": "assistant", "content": reply})
        question = await cast.user.next_message(messages, log, turn=turn, branch="shared")
        messages.append({"role": "user", "content": question})
    return messages


async def _grow(
    shared: list[Message], first: int, spoiled: frozenset[int], cast: Cast, log: CallLog, branch: Branch
) -> _Grown:
    """One branch from the first contrast turn on; its user messages come from its own history."""
    grown = _Grown(list(shared), [], first - 1)
    try:
        for turn in range(first, cast.config.generate.turns + 1):
            if turn > first:
                question = await cast.user.next_message(grown.messages, log, turn=turn - 1, branch=branch)
                grown.messages.append({"role": "user", "content": question})
            if turn in spoiled:
                reply, contrast = await cast.contraster.reply(grown.messages, log, turn=turn)
                grown.contrasts.append(contrast)
            else:
                reply = await cast.assistant.reply(grown.messages, log, turn=turn, branch=branch)
            grown.messages.append({"role": "assistant", "content": reply})
            grown.turns = turn
    except BranchStopped as stop:
        grown.stopped = stop
    return grown


async def _both(
    left: Coroutine[Any, Any, _Grown], right: Coroutine[Any, Any, _Grown]
) -> tuple[_Grown, _Grown]:
    """Runs two branches; when one dies with its engine, the other is not left running."""
    tasks = [asyncio.ensure_future(left), asyncio.ensure_future(right)]
    try:
        chosen, rejected = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    return chosen, rejected


def _cut_to_equal_turns(chosen: _Grown, rejected: _Grown, first: int, context_length: int) -> int:
    """Cuts both branches to the turns that both have: length must not give the label away.

    Raises:
        BranchStopped: they never got past the turn at which they part.
    """
    turns = min(chosen.turns, rejected.turns)
    if turns < first:
        stopped = chosen.stopped or rejected.stopped
        raise stopped or BranchStopped("no_contrast", "the branches have no turn in which they differ")
    for grown in (chosen, rejected):
        # After the context: a reply, then a question and a reply for each further turn.
        del grown.messages[context_length + 2 * turns - 1 :]
        grown.contrasts = [contrast for contrast in grown.contrasts if contrast.turn <= turns]
    return turns


def _row(
    seed: SeedContext,
    cast: Cast,
    status: str,
    reason: str,
    detail: str,
    chosen: _Grown,
    rejected: _Grown,
    turns: int,
    first: int,
    calls: list[Call],
    started: float,
) -> Rollout:
    assistant = cast.writers[0]
    return Rollout(
        id=seed.id,
        source=seed.source,
        conversation=seed.conversation,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        detail=detail,
        context=seed.messages,
        chosen=chosen.messages,
        rejected=rejected.messages,
        num_generated_turns=turns,
        first_contrast_turn=first,
        contrasts=rejected.contrasts,
        calls=calls,
        engine=assistant.engine,
        model=assistant.model,
        model_revision=assistant.model_revision,
        prompt_hash=prompts.prompt_hash(),
        run_epoch=cast.run_epoch,
        seconds=time.monotonic() - started,
        writers=cast.writers,
    )


def _writer(role: str, engine: Engine, sampling: SamplingConfig) -> Writer:
    return Writer(role=role, sampling=sampling.model_dump_json(), **engine.describe())
