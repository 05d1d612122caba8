"""The two ordinary speakers: the assistant that answers, and the user simulator that goes on asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from music_ray import prompts
from music_ray.config import AssistantConfig, UserConfig
from music_ray.engines.base import Engine, Prompt
from music_ray.generate.calls import Branch, BranchStopped, CallLog
from music_ray.schema import Message


@dataclass(frozen=True)
class Assistant:
    """Answers the last user message of a history."""

    config: AssistantConfig
    engine: Engine

    async def reply(self, history: Sequence[Message], log: CallLog, *, turn: int, branch: Branch) -> str:
        """The reply's text.

        Raises:
            BranchStopped: empty_reply, context_full or request_refused.
        """
        completion = await log.ask(
            self.engine,
            self.prompt(history),
            self.config.sampling,
            turn=turn,
            branch=branch,
            role="assistant",
        )
        text = completion.text.strip()
        if not text:
            raise BranchStopped("empty_reply", f"turn {turn} of the {branch} branch")
        return text

    def prompt(self, history: Sequence[Message]) -> Prompt:
        """The history as the assistant gets it: with the hint, where there is one."""
        if self.config.hint is None:
            return Prompt(list(history))
        *before, last = history
        hinted: Message = {"role": "user", "content": f"{last['content']}\n{self.config.hint}"}
        return Prompt([*before, hinted])


@dataclass(frozen=True)
class UserSimulator:
    """Writes the user's next message."""

    config: UserConfig
    engine: Engine

    async def next_message(
        self, history: Sequence[Message], log: CallLog, *, turn: int, branch: Branch
    ) -> str:
        """The message that opens the turn after `turn`. Empty and cut-off draws are drawn again.

        Args:
            history: a conversation that ends on a reply.

        Raises:
            BranchStopped: empty_user_message after max_attempts, context_full or request_refused.
        """
        for attempt in range(self.config.max_attempts):
            text, complete = await self._draw(history, log, turn=turn, branch=branch, attempt=attempt)
            last = attempt + 1 == self.config.max_attempts
            if text and (complete or last):
                return text  # a message that is cut off even now: the cut_off gate decides
            log.mark_unrecorded()
        raise BranchStopped("empty_user_message", f"after turn {turn} of the {branch} branch")

    async def alternative(
        self, history: Sequence[Message], log: CallLog, *, turn: int, branch: Branch, attempt: int
    ) -> str:
        """Another message that the simulator draws at the same point; it is not recorded.

        Args:
            history: the conversation before the message it stands in for.
        """
        text, _ = await self._draw(
            history, log, turn=turn, branch=branch, attempt=attempt, as_instruction=True
        )
        return text

    async def _draw(
        self,
        history: Sequence[Message],
        log: CallLog,
        *,
        turn: int,
        branch: Branch,
        attempt: int,
        as_instruction: bool = False,
    ) -> tuple[str, bool]:
        completion = await log.ask(
            self.engine,
            self._prompt(history),
            self.config.sampling,
            turn=turn,
            branch=branch,
            role="contrast" if as_instruction else "user",
            attempt=attempt,
            recorded=not as_instruction,
        )
        return completion.text.strip(), completion.finish_reason == "stop"

    def _prompt(self, history: Sequence[Message]) -> Prompt:
        if self.config.mode == "template":
            return Prompt(list(history), speaker="user")
        words = round(self.config.sampling.max_tokens * 0.6)  # about 0.75 words a token, and some room
        text = prompts.render("user_prompted.j2", has_history=bool(history), max_words=words)
        return Prompt([*history, {"role": "user", "content": text}])
