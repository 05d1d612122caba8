"""vLLM in the process of its actor: the engine core steps in a thread, requests are asyncio futures.

AsyncLLM would make two more processes that each import everything again and is slower on the CPU
(docs/explanation/engines.md has the measurement). Nothing here waits for a batch: a request that
ends frees its place at once, and the next one joins the running batch.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from music_ray.chat import ChatFormat
from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.base import Completion, EngineDeadError, Prompt, PromptTooLongError, RequestError
from music_ray.errors import InputError
from music_ray.models import resolve_model


@dataclass(slots=True)
class _Pending:
    request_id: str
    token_ids: list[int]
    params: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Completion]


class VllmEngine:
    """vLLM's LLMEngine with an asyncio face."""

    def __init__(self, config: EngineConfig) -> None:
        _set_environment(config)
        self.config = config
        self.model = resolve_model(config.model)
        self.chat = ChatFormat.load(self.model, config.revision)
        self._stop_ids = self.chat.end_of_turn_ids
        # After what can be wrong with the model's files: importing vLLM takes half a minute.
        from vllm import EngineArgs, LLMEngine, __version__

        self._version = __version__
        try:
            self._engine = LLMEngine.from_engine_args(EngineArgs(**_engine_args(config, self.model)))
        except ValueError as error:  # vLLM's word for settings that do not fit the model or the machine
            reason = " ".join(str(error).split())
            raise InputError(
                f"vLLM refuses {config.model} with the engine section's settings: {reason}"
            ) from None
        self._numbers = itertools.count()
        self._arrivals: deque[_Pending] = deque()
        self._running: dict[str, _Pending] = {}
        self._wake = threading.Condition()
        self._dead: str | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="vllm-steps", daemon=True)
        self._thread.start()

    def describe(self) -> dict[str, str]:
        """Recorded in every row."""
        commit = getattr(self._engine.model_config.hf_config, "_commit_hash", None)
        return {
            "engine": f"vllm {self._version}",
            "model": self.config.model,
            "model_revision": self.config.revision or commit or "",
        }

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate."""
        build = self.chat.user_prompt_ids if prompt.speaker == "user" else self.chat.reply_prompt_ids
        try:
            token_ids = build(prompt.messages)
        except TemplateError as error:
            raise RequestError(f"the chat template refuses the conversation: {error}") from None
        longest = len(token_ids) + sampling.max_tokens
        if longest > self.config.max_model_len:
            raise PromptTooLongError(
                f"{len(token_ids)} prompt tokens and up to {sampling.max_tokens} more exceed "
                f"engine.max_model_len ({self.config.max_model_len})"
            )
        loop = asyncio.get_running_loop()
        pending = _Pending(
            f"r{next(self._numbers)}", token_ids, self._params(sampling, seed), loop, loop.create_future()
        )
        with self._wake:
            if self._dead:
                raise EngineDeadError(self._dead)
            self._arrivals.append(pending)
            self._wake.notify()
        return await pending.future

    def close(self) -> None:
        """Stops the step thread; the process frees the memory when it ends."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=30)

    def _params(self, sampling: SamplingConfig, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            seed=seed,
            stop_token_ids=self._stop_ids,
            # A leaked control token must be seen by the template_leak gate, not hidden from it.
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    # -- the step thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._arrivals or self._running or self._closed):
                        self._wake.wait()
                    if self._closed:
                        self._fail_all("the engine was closed")
                        return
                    arrivals, self._arrivals = list(self._arrivals), deque()
                for pending in arrivals:
                    self._admit(pending)
                for output in self._engine.step():
                    self._resolve(output)
        except Exception as error:  # deliberate: whatever kills the engine core must reach its waiters
            with self._wake:
                self._fail_all(f"{type(error).__name__}: {error}")

    def _admit(self, pending: _Pending) -> None:
        try:
            self._engine.add_request(
                pending.request_id, {"prompt_token_ids": pending.token_ids}, pending.params
            )
        except ValueError as error:  # vLLM's word for a request that it will not take
            _settle(pending, error=RequestError(str(error)))
        else:
            self._running[pending.request_id] = pending

    def _resolve(self, output: Any) -> None:
        if not output.finished:
            return
        pending = self._running.pop(output.request_id)
        choice = output.outputs[0]
        completion = Completion(
            text=choice.text,
            finish_reason=choice.finish_reason or "unknown",
            prompt_tokens=len(output.prompt_token_ids or ()),
            cached_tokens=output.num_cached_tokens or 0,
            completion_tokens=len(choice.token_ids),
        )
        _settle(pending, completion)

    def _fail_all(self, reason: str) -> None:
        self._dead = reason
        for pending in (*self._arrivals, *self._running.values()):
            _settle(pending, error=EngineDeadError(reason))
        self._arrivals.clear()
        self._running.clear()


def _settle(pending: _Pending, value: Completion | None = None, error: Exception | None = None) -> None:
    def settle() -> None:
        if pending.future.done():  # its waiter was cancelled
            return
        if error is not None:
            pending.future.set_exception(error)
        else:
            pending.future.set_result(value)  # type: ignore[arg-type]

    if not pending.loop.is_closed():
        pending.loop.call_soon_threadsafe(settle)


def _set_environment(config: EngineConfig) -> None:
    """What vLLM reads from the environment while it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if config.gpus_per_engine == 0:
        # Unset, vLLM takes what it finds. It reads whole GiB.
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(config.kv_cache_gib)))


def _engine_args(config: EngineConfig, model: str) -> dict[str, Any]:
    on_cpu = config.gpus_per_engine == 0
    dtype = "float32" if on_cpu and config.dtype == "auto" else config.dtype
    arguments: dict[str, Any] = {
        "model": model,
        "revision": config.revision,
        "dtype": dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens
        or (max(config.max_model_len, 2048) if on_cpu else 16384),
        "enable_prefix_caching": True,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel_size,
        "disable_log_stats": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": 0,
    }
    if on_cpu:
        # vLLM 0.32 on the CPU dies when a request with its own seed has its prefill split.
        arguments["enable_chunked_prefill"] = False
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    return arguments
