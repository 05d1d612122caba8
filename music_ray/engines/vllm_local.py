"""vLLM on this machine: messages to token ids, vLLM's answers to completions.

Where the engine core runs is one of two arrangements behind one small protocol: in this process
(vllm_steps) or in a process of its own (vllm_async). docs/explanation/engines.md has the measurements.
Nothing here waits for a batch: a request that ends frees its place at once, and the next one joins.
"""

from __future__ import annotations

from typing import Any, Protocol

from jinja2 import TemplateError

from music_ray.chat import ChatFormat
from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.base import Completion, Prompt, PromptTooLongError, RequestError
from music_ray.engines.threads import engine_threads
from music_ray.engines.vllm_settings import (
    Settings,
    derive_settings,
    device_facts,
    engine_arguments,
    model_facts,
)
from music_ray.errors import InputError
from music_ray.models import resolve_model
from music_ray.progress import say


class Core(Protocol):
    """One arrangement of vLLM's engine core."""

    commit: str | None
    """Commit of a hub model, as vLLM resolved it."""

    async def answer(self, token_ids: list[int], params: Any) -> Any:
        """vLLM's RequestOutput of one request, finished. Any event loop may call this.

        Raises:
            RequestError, EngineDeadError: as Engine.generate.
        """
        ...

    def forget_prefixes(self) -> None:
        """Empties the prefix cache; only while no request runs."""
        ...

    def close(self) -> None:
        """Ends the core and all processes that it started."""
        ...


class VllmEngine:
    """vLLM behind the engine protocol."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.model = resolve_model(config.model)
        self.chat = ChatFormat.load(self.model, config.revision)
        self._stop_ids = self.chat.end_of_turn_ids
        facts = model_facts(config, self.model)
        # After what can be wrong with the model's files: importing vLLM takes half a minute.
        from vllm import __version__

        self._version = __version__
        self.settings: Settings = derive_settings(config, device_facts(config), facts)
        """What vLLM runs with, derived values included."""
        say(f"engine: vLLM {__version__} with {config.model}: {self.settings.line()}")
        try:
            self.core: Core = _start_core(config, self.settings, self.model)
        except ValueError as error:  # vLLM's word for settings that do not fit the model or the machine
            reason = " ".join(str(error).split())
            raise InputError(
                f"vLLM refuses {config.model} with the engine section's settings: {reason}"
            ) from None

    def describe(self) -> dict[str, str]:
        """Recorded in every row."""
        return {
            "engine": f"vllm {self._version}",
            "model": self.config.model,
            "model_revision": self.config.revision or self.core.commit or "",
        }

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate."""
        build = self.chat.user_prompt_ids if prompt.speaker == "user" else self.chat.reply_prompt_ids
        try:
            token_ids = build(prompt.messages) + self._encoded(sampling.begin)
        except TemplateError as error:
            raise RequestError(f"the chat template refuses the conversation: {error}") from None
        longest = len(token_ids) + sampling.max_tokens
        if longest > self.config.max_model_len:
            raise PromptTooLongError(
                f"{len(token_ids)} prompt tokens and up to {sampling.max_tokens} more exceed "
                f"engine.max_model_len ({self.config.max_model_len})"
            )
        output = await self.core.answer(token_ids, self.params(sampling, seed))
        choice = output.outputs[0]
        return Completion(
            # What begins a text does not make one of it: without more it is empty, and counted as that.
            text=sampling.begin + choice.text if choice.text.strip() else "",
            finish_reason=choice.finish_reason or "unknown",
            prompt_tokens=len(output.prompt_token_ids or ()),
            cached_tokens=output.num_cached_tokens or 0,
            completion_tokens=len(choice.token_ids),
        )

    def _encoded(self, text: str) -> list[int]:
        return self.chat.tokenizer.encode(text, add_special_tokens=False) if text else []

    def params(self, sampling: SamplingConfig, seed: int) -> Any:
        """vLLM's SamplingParams for one request."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            seed=seed if self.config.request_seeds else None,
            stop_token_ids=self._stop_ids,
            # A leaked control token must be seen by the template_leak gate, not hidden from it.
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def close(self) -> None:
        """Ends the core and its processes; what still waits for an answer gets EngineDeadError."""
        self.core.close()


def _start_core(config: EngineConfig, settings: Settings, model: str) -> Core:
    arguments = engine_arguments(config, model, settings)
    threads = engine_threads(config)
    if settings.arrangement == "in_process":
        from music_ray.engines.vllm_steps import StepCore

        return StepCore(arguments, threads)
    from music_ray.engines.vllm_async import AsyncCore

    return AsyncCore(arguments, threads)
