"""A branch's engine calls: each gets a seed that is a function of the plan, and leaves a record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Literal

from music_ray.config import SamplingConfig
from music_ray.engines.base import Completion, Engine, Prompt, PromptTooLongError, RequestError
from music_ray.schema import Call, content_id

Branch = Literal["shared", "chosen", "rejected"]
Role = Literal["assistant", "user", "contrast"]


class BranchStopped(Exception):
    """A branch can't go on: the reason (snake_case, counted) and a detail for the row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def request_seed(run_seed: int, seed_id: int, turn: int, branch: str, role: str, attempt: int) -> int:
    """The sampling seed of one call, 31 bits: the same in every retry of the same plan."""
    return content_id([run_seed, seed_id, turn, branch, role, attempt]) % 2**31


@dataclass
class CallLog:
    """Makes the calls of one branch, which come one after the other, and keeps their accounts."""

    run_seed: int
    seed_id: int
    calls: list[Call] = field(default_factory=list)

    async def ask(
        self,
        engine: Engine,
        prompt: Prompt,
        sampling: SamplingConfig,
        *,
        turn: int,
        branch: Branch,
        role: Role,
        attempt: int = 0,
        recorded: bool = True,
    ) -> Completion:
        """One call of the engine that plays the role.

        Raises:
            BranchStopped: the history no longer fits (context_full), or the engine's reason for not answering
                (request_refused, content_filter, rate_limited, endpoint_timeout, …).
            InputError: an endpoint's key or model is wrong: the run can't go on.
        """
        seed = request_seed(self.run_seed, self.seed_id, turn, branch, role, attempt)
        started = time.monotonic()
        try:
            completion = await engine.generate(prompt, sampling, seed)
        except PromptTooLongError as error:
            raise BranchStopped("context_full", str(error)) from None
        except RequestError as error:
            raise BranchStopped(error.reason, str(error)) from None
        self.calls.append(
            Call(
                turn=turn,
                branch=branch,
                role=role,
                seed=seed,
                prompt_tokens=completion.prompt_tokens,
                cached_tokens=completion.cached_tokens,
                completion_tokens=completion.completion_tokens,
                finish_reason=completion.finish_reason,
                recorded=recorded,
                seconds=time.monotonic() - started,
            )
        )
        return completion

    def mark_unrecorded(self, index: int = -1) -> None:
        """The text of a call, the last one by default, did not become a message (it was drawn again)."""
        self.calls[index] = replace(self.calls[index], recorded=False)

    def mark_recorded(self, index: int, *, complete: bool = False) -> None:
        """The text of a call became a message of the conversation.

        Args:
            index: where in `calls` it is.
            complete: the message's end was seen. A call that ran on to its token limit then cut nothing of
                the message off, so it is recorded as one that stopped.
        """
        call = self.calls[index]
        finish_reason = "stop" if complete else call.finish_reason
        if not call.recorded or finish_reason != call.finish_reason:
            self.calls[index] = replace(call, recorded=True, finish_reason=finish_reason)
