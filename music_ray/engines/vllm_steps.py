"""vLLM's core in this process: it steps in a thread, requests are asyncio futures.

On the CPU this is the faster arrangement: no process imports everything again, and no tokens travel
between processes. With tensor parallelism its workers are processes all the same.

The thread that steps has also loaded the model. OpenMP keeps a team of threads for every thread that ever
computed, and with two teams on the cores it no longer waits awake for the next piece of work: loaded in
one thread and stepped in another, vLLM kept 1.4 of 2 cores busy and took 1.4 times as long.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from music_ray.engines.base import EngineDeadError, RequestError
from music_ray.engines.threads import compute_with
from music_ray.engines.vllm_processes import starting_vllm


@dataclass(slots=True)
class _Pending:
    request_id: str
    token_ids: list[int]
    params: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class StepCore:
    """LLMEngine with an asyncio face; see vllm_local.Core."""

    def __init__(self, arguments: dict[str, Any], threads: int | None) -> None:
        from vllm.exceptions import VLLMClientError

        self._refusals = (ValueError, VLLMClientError)
        self._numbers = itertools.count()
        self._arrivals: deque[_Pending] = deque()
        self._running: dict[str, _Pending] = {}
        self._wake = threading.Condition()
        self._dead: str | None = None
        self._closed = False
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(arguments, threads, started), name="vllm-steps", daemon=True
        )
        split = arguments["tensor_parallel_size"]
        with starting_vllm(split, core_in_this_process=True, threads=threads) as self._lifeline:
            self._thread.start()
            started.result()
        self.commit: str | None = getattr(self._engine.model_config.hf_config, "_commit_hash", None)

    async def answer(self, token_ids: list[int], params: Any) -> Any:
        """See Core.answer."""
        loop = asyncio.get_running_loop()
        pending = _Pending(f"r{next(self._numbers)}", token_ids, params, loop, loop.create_future())
        with self._wake:
            if self._dead:
                raise EngineDeadError(self._dead)
            self._arrivals.append(pending)
            self._wake.notify()
        return await pending.future

    def forget_prefixes(self) -> None:
        """See Core.forget_prefixes."""
        self._engine.reset_prefix_cache()

    def close(self) -> None:
        """Stops the step thread and vLLM's workers; the process frees the memory when it ends."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=30)
        if self._lifeline is not None:
            self._engine.engine_core.shutdown()
            self._lifeline.close()

    # -- the step thread ---------------------------------------------------------------------------

    def _run(self, arguments: dict[str, Any], threads: int | None, started: Future[None]) -> None:
        from vllm import EngineArgs, LLMEngine

        try:
            compute_with(threads)
            self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        except BaseException as error:  # deliberate: it is raised where the core is made
            started.set_exception(error)
            return
        started.set_result(None)
        self._step_until_closed()

    def _step_until_closed(self) -> None:
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
        # Before vLLM sees it: if that kills the core, this request is told as well.
        self._running[pending.request_id] = pending
        try:
            self._engine.add_request(
                pending.request_id, {"prompt_token_ids": pending.token_ids}, pending.params
            )
        except self._refusals as error:  # vLLM will not take this request; the others go on
            del self._running[pending.request_id]
            _settle(pending, error=RequestError(str(error)))

    def _resolve(self, output: Any) -> None:
        if output.finished:
            _settle(self._running.pop(output.request_id), output)

    def _fail_all(self, reason: str) -> None:
        self._dead = reason
        for pending in (*self._arrivals, *self._running.values()):
            _settle(pending, error=EngineDeadError(reason))
        self._arrivals.clear()
        self._running.clear()


def _settle(pending: _Pending, value: Any = None, error: Exception | None = None) -> None:
    def settle() -> None:
        if pending.future.done():  # its waiter was cancelled
            return
        if error is not None:
            pending.future.set_exception(error)
        else:
            pending.future.set_result(value)

    if not pending.loop.is_closed():
        pending.loop.call_soon_threadsafe(settle)
