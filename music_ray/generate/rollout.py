"""The method: one seed grows into two branches (design, steps 2 and 3; MUSIC's Algorithm 1).

    context ── one branch up to the first contrast turn, generated once ──┬── chosen
                                                                          └── rejected

A rollout is one coroutine. Its branches run beside each other after they part, and nothing waits
for any other rollout; what one branch needs of the other is in sides.py. This module does not know Ray,
files or which engine answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from music_ray import prompts
from music_ray.config import RunConfig
from music_ray.engines.base import Engine, RoleEngines
from music_ray.generate.calls import Branch, BranchStopped, CallLog
from music_ray.generate.contrasts import Contraster
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.roles import Assistant, UserSimulator
from music_ray.generate.schedule import contrast_turns
from music_ray.generate.sides import Grown, Sides
from music_ray.prompts import own
from music_ray.schema import Call, Message, Rollout, SeedContext, Writer


@dataclass(frozen=True)
class Cast:
    """All that a rollout needs besides its seed."""

    config: RunConfig
    assistant: Assistant
    user: UserSimulator
    contraster: Contraster
    run_epoch: int
    speakers: dict[str, tuple[Engine, str]]
    """Who plays which role, with its sampling as JSON: recorded in every row."""
    prompt_hash: str
    """Of the built-in templates, and of an own template or plugin; recorded in every row."""

    @classmethod
    def of(cls, config: RunConfig, engines: RoleEngines, pool: NeighbourPool | None, run_epoch: int) -> Cast:
        """The cast that a configuration describes."""
        assistant = Assistant(config.assistant, engines.assistant)
        user = UserSimulator(config.user, engines.user)
        contraster = Contraster.of(
            config.contrast, config.generate.turns, engines.contrast, assistant, user, pool
        )
        speakers = {
            "assistant": (engines.assistant, config.assistant.sampling.model_dump_json()),
            "user": (engines.user, config.user.sampling.model_dump_json()),
            "contrast": (engines.contrast, config.contrast.sampling.model_dump_json()),
        }
        prompt_hash = "+".join([prompts.prompt_hash(), *own.hashes(config.contrast).values()])
        return cls(config, assistant, user, contraster, run_epoch, speakers, prompt_hash)


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
        sides = Sides(shared, first, config.generate.turns)
        await _both(
            _grow_chosen(sides, cast, logs["chosen"]),
            _grow_rejected(sides, spoiled, cast, logs["rejected"]),
        )
        chosen, rejected = sides.chosen, sides.rejected
        turns = sides.cut_to_equal_turns(len(seed.messages))
        stopped = sides.first_stop()
        status, reason, detail = "ok", stopped.reason if stopped else "", stopped.detail if stopped else ""
    except BranchStopped as stop:
        chosen, rejected, turns, first = Grown([], 0), Grown([], 0), 0, 0
        status, reason, detail = "error", stop.reason, stop.detail
    calls = [call for log in logs.values() for call in log.calls]
    return _row(seed, cast, status, reason, detail, chosen, rejected, turns, first, calls, started)


def error_row(seed: SeedContext, cast: Cast, reason: str, detail: str) -> Rollout:
    """The row of a seed that is not rolled out (any more)."""
    nothing = Grown([], 0)
    return _row(seed, cast, "error", reason, detail, nothing, nothing, 0, 0, [], time.monotonic())


async def _shared_beginning(context: list[Message], first: int, cast: Cast, log: CallLog) -> list[Message]:
    """The one branch before the first contrast turn: ends on the user message that both sides answer."""
    messages = list(context)
    for turn in range(1, first):
        reply = await cast.assistant.reply(messages, log, turn=turn, branch="shared")
        messages.append({"role": "assistant", "content": reply})
        question = await cast.user.next_message(messages, log, turn=turn, branch="shared")
        messages.append({"role": "user", "content": question})
    return messages


async def _grow_chosen(sides: Sides, cast: Cast, log: CallLog) -> None:
    """The chosen branch from the first contrast turn on."""
    grown = sides.chosen
    with sides.growing(grown):
        for turn in sides.turns():
            if turn > sides.first:
                question = await cast.user.next_message(grown.messages, log, turn=turn - 1, branch="chosen")
                sides.say(grown, "user", question)
                if not sides.may_go_on(turn):
                    return
            reply = await cast.assistant.reply(grown.messages, log, turn=turn, branch="chosen")
            sides.say(grown, "assistant", reply)


async def _grow_rejected(sides: Sides, spoiled: frozenset[int], cast: Cast, log: CallLog) -> None:
    """The rejected branch from the first contrast turn on; `spoiled` holds that turn."""
    grown = sides.rejected
    with sides.growing(grown):
        for turn in sides.turns():
            if turn > sides.first:
                question = await _rejected_question(sides, cast, log, turn)
                if question is None:
                    return
                sides.say(grown, "user", question)
                if not sides.may_go_on(turn):
                    return
            if turn not in spoiled:
                reply = await cast.assistant.reply(grown.messages, log, turn=turn, branch="rejected")
                sides.say(grown, "assistant", reply)
                continue
            chosen_reply = None
            # Only at the first turn do both branches answer the same user message.
            if cast.config.contrast.show_chosen_reply and turn == sides.first:
                chosen_reply = await sides.chosen_reply()
                if chosen_reply is None:
                    return
            reply, contrast = await cast.contraster.reply(
                grown.messages, log, turn=turn, chosen_reply=chosen_reply
            )
            grown.contrasts.append(contrast)
            sides.say(grown, "assistant", reply)


async def _rejected_question(sides: Sides, cast: Cast, log: CallLog, turn: int) -> str | None:
    """The user message that opens a turn of the rejected branch; None when there will be none."""
    if cast.config.user.history == "replay_chosen":
        return await sides.chosen_question(turn)
    return await cast.user.next_message(sides.rejected.messages, log, turn=turn - 1, branch="rejected")


async def _both(left: Coroutine[Any, Any, None], right: Coroutine[Any, Any, None]) -> None:
    """Runs two branches; when one dies with its engine, the other is not left running."""
    tasks = [asyncio.ensure_future(left), asyncio.ensure_future(right)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def _row(
    seed: SeedContext,
    cast: Cast,
    status: str,
    reason: str,
    detail: str,
    chosen: Grown,
    rejected: Grown,
    turns: int,
    first: int,
    calls: list[Call],
    started: float,
) -> Rollout:
    # Asked for each row: what stands behind an endpoint's name may change while a run goes on.
    writers = [
        Writer(role=role, sampling=sampling, **engine.describe())
        for role, (engine, sampling) in cast.speakers.items()
    ]
    assistant = writers[0]
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
        prompt_hash=cast.prompt_hash,
        run_epoch=cast.run_epoch,
        seconds=time.monotonic() - started,
        writers=writers,
    )
