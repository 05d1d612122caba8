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
            BranchStopped: the history no longer fits (context_full) or the request was refused.
        """
        seed = request_seed(self.run_seed, self.seed_id, turn, branch, role, attempt)
        started = time.monotonic()
        try:
            completion = await engine.generate(prompt, sampling, seed)
        except PromptTooLongError as error:
            raise BranchStopped("context_full", str(error)) from None
        except RequestError as error:
            raise BranchStopped("request_refused", str(error)) from None
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

    def mark_unrecorded(self) -> None:
        """The last call's text did not become a message after all (it was drawn again)."""
        self.calls[-1] = replace(self.calls[-1], recorded=False)
