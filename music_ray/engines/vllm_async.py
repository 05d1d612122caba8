"""vLLM's core in a process of its own (AsyncLLM), for devices whose scheduling should not wait for us.

AsyncLLM belongs to the event loop that it first runs in. Here that loop has a thread of its own, so that
any loop may ask, and one that ends takes nothing along.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import threading
from collections.abc import Coroutine
from typing import Any

from music_ray.engines.base import EngineDeadError, RequestError
from music_ray.engines.vllm_processes import starting_vllm

WATCH_SECONDS = 1.0
"""How often the core's state is looked at: a request that came in while it died would wait for ever."""

SHUTDOWN_SECONDS = 10.0
"""How long the core may take to end by itself."""


class AsyncCore:
    """AsyncLLM in a thread; see vllm_local.Core."""

    def __init__(self, arguments: dict[str, Any], threads: int | None) -> None:
        self._numbers = itertools.count()
        self._waiting: set[asyncio.Task[Any]] = set()
        self._dead: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-async", daemon=True)
        self._thread.start()
        try:
            split = arguments["tensor_parallel_size"]
            with starting_vllm(split, core_in_this_process=False, threads=threads) as self._lifeline:
                self._llm = self._in_loop(self._start(arguments))
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise
        self.commit: str | None = getattr(self._llm.model_config.hf_config, "_commit_hash", None)
        # At its end this process would wait for the core's, which would wait for work.
        atexit.register(self.close)

    async def answer(self, token_ids: list[int], params: Any) -> Any:
        """See Core.answer."""
        if self._dead:
            raise EngineDeadError(self._dead)
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._answer(token_ids, params), self._loop)
        )

    def forget_prefixes(self) -> None:
        """See Core.forget_prefixes."""
        self._in_loop(self._llm.reset_prefix_cache())

    def close(self) -> None:
        """Ends the core's process and its workers."""
        atexit.unregister(self.close)
        if not self._loop.is_running():
            return
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        if self._lifeline is not None:
            self._lifeline.close()

    # -- the loop's thread -------------------------------------------------------------------------

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, arguments: dict[str, Any]) -> Any:
        from vllm import AsyncEngineArgs
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine import exceptions
        from vllm.v1.engine.async_llm import AsyncLLM

        self._refusals = (ValueError, VLLMClientError, exceptions.EngineGenerateError)
        self._deaths = exceptions.EngineDeadError
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._watcher = asyncio.create_task(self._watch(llm))
        return llm

    async def _answer(self, token_ids: list[int], params: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        request = self._llm.generate({"prompt_token_ids": token_ids}, params, f"r{next(self._numbers)}")
        try:
            return [output async for output in request][-1]
        except self._deaths as error:
            raise EngineDeadError(self._dead or str(error)) from None
        except asyncio.CancelledError:
            if self._dead:  # it was not the asker who cancelled
                raise EngineDeadError(self._dead) from None
            raise
        except self._refusals as error:
            raise RequestError(str(error.__cause__ or error)) from None
        finally:
            self._waiting.discard(task)

    async def _watch(self, llm: Any) -> None:
        while not llm.errored:
            await asyncio.sleep(WATCH_SECONDS)
        self._fail_all("vLLM's core process or one of its workers has ended; its messages are above")

    async def _stop(self) -> None:
        self._watcher.cancel()
        waiting = list(self._waiting)
        self._fail_all("the engine was closed")
        if waiting:  # they take their requests back, which needs the core
            await asyncio.wait(waiting, timeout=WATCH_SECONDS)
        self._llm.shutdown(timeout=SHUTDOWN_SECONDS)

    def _fail_all(self, reason: str) -> None:
        self._dead = self._dead or reason
        for task in self._waiting:
            task.cancel()
