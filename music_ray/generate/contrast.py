"""The contrast: the rejected branch's reply answers another instruction than the user's.

    joint      one call returns the modified instruction and the reply to it
    two_step   one call writes the modified instruction, a clean call answers it
    neighbour  the modified instruction is a similar message from the pool, a clean call answers it
    resample   the simulator draws another message at the same point, a clean call answers it

The history keeps only what the user really asked, so the wrongness stays in the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from music_ray import prompts
from music_ray.config import ContrastConfig
from music_ray.engines.base import Engine, Prompt
from music_ray.generate.calls import BranchStopped, CallLog
from music_ray.generate.neighbours import NeighbourPool, word_overlap
from music_ray.generate.roles import Assistant, UserSimulator
from music_ray.schema import Contrast, Message

_INSTRUCTION = re.compile(r"<modified_instruction>\s*(\S.*?)\s*</modified_instruction>", re.DOTALL)
_REPLY = re.compile(r"<reply>\s*(\S.*?)\s*</reply>", re.DOTALL)


@dataclass(frozen=True)
class Contraster:
    """Writes contrasted replies in the configured mode."""

    config: ContrastConfig
    engine: Engine
    """Writes modified instructions (joint: and the replies to them)."""
    assistant: Assistant
    user: UserSimulator
    pool: NeighbourPool | None
    """neighbour's pool; None in the other modes."""

    async def reply(self, history: Sequence[Message], log: CallLog, *, turn: int) -> tuple[str, Contrast]:
        """A reply to a modified instruction, and the record of it.

        Args:
            history: the rejected branch so far, ending on the user message that is not answered.

        Raises:
            BranchStopped: contrast_unparsed, contrast_not_different, no_neighbour, or as the roles do.
        """
        if self.config.mode == "joint":
            return await self._joint(history, log, turn)
        instruction, attempts = await self._instruction(history, log, turn)
        modified: Message = {"role": "user", "content": instruction}
        text = await self.assistant.reply([*history[:-1], modified], log, turn=turn, branch="rejected")
        return text, self._record(history, turn, instruction, attempts)

    def _record(self, history: Sequence[Message], turn: int, instruction: str, attempts: int) -> Contrast:
        return Contrast(turn, history[-1]["content"], instruction, self.config.mode, attempts)

    async def _joint(self, history: Sequence[Message], log: CallLog, turn: int) -> tuple[str, Contrast]:
        message = history[-1]["content"]
        reason = ""
        for attempt in range(self.config.max_attempts):
            answer = await self._call("contrast_joint.j2", history, log, turn, attempt, recorded=True)
            found, reply = _INSTRUCTION.search(answer), _REPLY.search(answer)
            if found and reply and not self._same_request(found[1], message):
                return reply[1], self._record(history, turn, found[1], attempt + 1)
            reason = "contrast_not_different" if found and reply else "contrast_unparsed"
            log.mark_unrecorded()
        raise BranchStopped(reason, f"turn {turn}, {self.config.max_attempts} attempts")

    async def _instruction(self, history: Sequence[Message], log: CallLog, turn: int) -> tuple[str, int]:
        """A modified instruction that stands alone, and how many attempts it took."""
        message = history[-1]["content"]
        reason = ""
        for attempt in range(self.config.max_attempts):
            instruction = await self._one_instruction(history, log, turn, attempt)
            if instruction and not self._same_request(instruction, message):
                return instruction, attempt + 1
            reason = "contrast_not_different" if instruction else "contrast_unparsed"
        raise BranchStopped(reason, f"turn {turn}, {self.config.max_attempts} attempts")

    async def _one_instruction(
        self, history: Sequence[Message], log: CallLog, turn: int, attempt: int
    ) -> str:
        if self.config.mode == "two_step":
            answer = await self._call("contrast_two_step.j2", history, log, turn, attempt, recorded=False)
            found = _INSTRUCTION.search(answer)
            return found[1] if found else ""
        if self.config.mode == "resample":
            return await self.user.alternative(
                history[:-1], log, turn=turn, branch="rejected", attempt=attempt
            )
        if self.pool is None:
            raise ValueError("contrast.mode=neighbour needs a pool")
        asked = {message["content"] for message in history if message["role"] == "user"}
        neighbour = self.pool.draw(history[-1]["content"], asked, log.run_seed, log.seed_id, turn, attempt)
        if neighbour is None:
            raise BranchStopped("no_neighbour", f"turn {turn}: no message in the pool is different enough")
        return neighbour

    async def _call(
        self,
        template: str,
        history: Sequence[Message],
        log: CallLog,
        turn: int,
        attempt: int,
        *,
        recorded: bool,
    ) -> str:
        # The contrast text stands after the shared history, so that its prefix stays cached.
        text = prompts.render(template, message=history[-1]["content"])
        prompt = Prompt([*history[:-1], {"role": "user", "content": text}])
        completion = await log.ask(
            self.engine,
            prompt,
            self.config.sampling,
            turn=turn,
            branch="rejected",
            role="contrast",
            attempt=attempt,
            recorded=recorded,
        )
        return completion.text

    def _same_request(self, instruction: str, message: str) -> bool:
        return word_overlap(instruction, message) >= self.config.max_similarity
