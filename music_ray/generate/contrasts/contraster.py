"""The contrast modes, and when an attempt of one is good enough.

What a reply really answers is not judged here: a message in other words is no contrast, a reply that
equals the chosen one neither; the rest is for the gates and for whoever reads the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Template

from music_ray import prompts
from music_ray.config import ContrastConfig
from music_ray.engines.base import Engine, Prompt
from music_ray.generate.calls import BranchStopped, CallLog
from music_ray.generate.contrasts import tags
from music_ray.generate.contrasts.draft import Draft, Point
from music_ray.generate.contrasts.plugin import Plugin, draft_by_plugin
from music_ray.generate.neighbours import NeighbourPool, word_overlap
from music_ray.generate.roles import Assistant, UserSimulator
from music_ray.prompts import own
from music_ray.schema import Contrast, Message

PLUGIN = "plugin"
_NEEDS_INSTRUCTION = {"joint", "two_step", "neighbour", "resample"}
_WRITES_REPLY = {"joint", "direct", PLUGIN}
"""The others write an instruction, and a clean call answers it."""


@dataclass(frozen=True)
class Contraster:
    """Writes contrasted replies in the configured mode."""

    config: ContrastConfig
    num_turns: int
    engine: Engine
    """Writes modified instructions (joint and direct: replies)."""
    assistant: Assistant
    user: UserSimulator
    pool: NeighbourPool | None
    """neighbour's pool; None in the other modes."""
    template: Template | None
    """The user's own, in the place of the mode's."""
    plugin: Plugin | None
    mode: str
    """As rows record it: contrast.mode, or 'plugin'."""

    @classmethod
    def of(
        cls,
        config: ContrastConfig,
        num_turns: int,
        engine: Engine,
        assistant: Assistant,
        user: UserSimulator,
        pool: NeighbourPool | None,
    ) -> Contraster:
        """The contraster that a configuration describes.

        Raises:
            InputError: the template or plugin that it names can't be had.
        """
        template = own.compiled(own.template_text(config.template)) if config.template else None
        plugin = own.load_plugin(config.plugin) if config.plugin else None
        mode = PLUGIN if plugin else config.mode
        return cls(config, num_turns, engine, assistant, user, pool, template, plugin, mode)

    async def reply(
        self, history: Sequence[Message], log: CallLog, *, turn: int, chosen_reply: str | None = None
    ) -> tuple[str, Contrast]:
        """A reply to something else than the user asked, and the record of it.

        Args:
            history: the rejected branch so far, ending on the user message that is not answered.
            chosen_reply: the good reply to the same message, where the model may see it.

        Raises:
            BranchStopped: contrast_unparsed, contrast_not_different, no_neighbour, template_failed,
                plugin_failed, or as the roles do.
        """
        point = Point(list(history), log, turn, chosen_reply)
        reason = ""
        for attempt in range(self.config.max_attempts):
            draft = await self._draft(point, attempt)
            reason = self._problem(draft, point)
            if not reason:
                text = await self._written(draft, point)
                return text, Contrast(turn, point.message, draft.instruction, self.mode, attempt + 1)
            if draft.call is not None:
                log.mark_unrecorded(draft.call)
        raise BranchStopped(reason, f"turn {turn}, {self.config.max_attempts} attempts")

    def _problem(self, draft: Draft, point: Point) -> str:
        """Why an attempt is no contrast; empty when it is one."""
        if self.mode in _NEEDS_INSTRUCTION and not draft.instruction:
            return "contrast_unparsed"
        if self.mode in _WRITES_REPLY and not draft.reply:
            return "contrast_unparsed"
        if draft.instruction and self._same_request(draft.instruction, point.message):
            return "contrast_not_different"
        if draft.reply and draft.reply == point.chosen_reply:
            return "contrast_not_different"
        return ""

    async def _written(self, draft: Draft, point: Point) -> str:
        """The reply of an accepted attempt."""
        if self.mode in _WRITES_REPLY:
            if draft.call is not None:
                point.log.mark_recorded(draft.call, complete=draft.complete)
            return draft.reply
        modified: Message = {"role": "user", "content": draft.instruction}
        return await self.assistant.reply(
            [*point.history[:-1], modified], point.log, turn=point.turn, branch="rejected"
        )

    async def _draft(self, point: Point, attempt: int) -> Draft:
        if self.plugin is not None:
            return await draft_by_plugin(
                self.plugin, point, attempt, self.config, self.engine, self.assistant, self.num_turns
            )
        if self.mode == "neighbour":
            return Draft(self._neighbour(point, attempt))
        if self.mode == "resample":
            return Draft(
                await self.user.alternative(
                    point.history[:-1], point.log, turn=point.turn, branch="rejected", attempt=attempt
                )
            )
        return await self._prompted(point, attempt)

    def _neighbour(self, point: Point, attempt: int) -> str:
        if self.pool is None:
            raise ValueError("contrast.mode=neighbour needs a pool")
        asked = {message["content"] for message in point.history if message["role"] == "user"}
        log, turn = point.log, point.turn
        neighbour = self.pool.draw(point.message, asked, log.run_seed, log.seed_id, turn, attempt)
        if neighbour is None:
            raise BranchStopped("no_neighbour", f"turn {turn}: no message in the pool is different enough")
        return neighbour

    async def _prompted(self, point: Point, attempt: int) -> Draft:
        """joint, two_step, direct: the model is told what to write."""
        # The contrast text stands after the shared history, so that its prefix stays cached.
        prompt = Prompt([*point.history[:-1], {"role": "user", "content": self._text(point)}])
        completion = await point.log.ask(
            self.engine,
            prompt,
            self.config.sampling,
            turn=point.turn,
            branch="rejected",
            role="contrast",
            attempt=attempt,
            recorded=self.mode != "two_step",
        )
        call = len(point.log.calls) - 1
        if self.mode == "two_step":
            return Draft(tags.find_instruction(completion.text))
        if self.mode == "direct":
            return Draft(reply=completion.text.strip(), call=call)
        instruction, reply, complete = tags.find_joint(completion.text, completion.finish_reason)
        return Draft(instruction, reply, call, complete)

    def _text(self, point: Point) -> str:
        values = {
            "message": point.message,
            "history": point.history[:-1],
            "chosen_reply": point.chosen_reply,
            "turn": point.turn,
            "num_turns": self.num_turns,
        }
        if self.template is None:
            return prompts.render(f"contrast_{self.mode}.j2", **values)
        try:
            return self.template.render(**values).strip()
        except Exception as error:  # whatever a user's template raises concerns this row alone
            detail = f"turn {point.turn}: {type(error).__name__}: {error}"
            raise BranchStopped("template_failed", detail) from None

    def _same_request(self, instruction: str, message: str) -> bool:
        return word_overlap(instruction, message) >= self.config.max_similarity
