"""What turns token ids into a score: vLLM's pooling runner, or transformers' own forward pass.

Both pool the last token of `ChatFormat.conversation_ids` and give the head's raw output, no sigmoid. They
know token ids, not messages or rows.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from music_ray.config import RunConfig
from music_ray.engines.base import EngineDeadError
from music_ray.engines.threads import compute_with, engine_threads
from music_ray.errors import InputError
from music_ray.progress import say

_BATCHES_AT_ONCE = 8
"""huggingface: batches' worth of conversations that are sorted by length together."""

_SORTED_AT_ONCE = 512
"""packed: conversations among which those that begin alike are sought."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The score of one conversation."""

    score: float
    """As float32 has it; perhaps not finite."""
    cached_tokens: int = 0
    """Tokens whose keys and values another conversation had left."""


class Scorer(Protocol):
    """A loaded reward model that takes many conversations at once."""

    def describe(self) -> str:
        """Name and version, e.g. 'vllm 0.32.0'."""
        ...

    async def score(self, token_ids: list[int]) -> Scored:
        """The score of one conversation of 1 to engine.max_model_len tokens.

        Raises:
            RequestError: it is refused; others go on.
            EngineDeadError: nothing can be scored any more.
        """
        ...

    def close(self) -> None:
        """Ends what the scorer has started."""
        ...


def make_scorer(config: RunConfig) -> Scorer:
    """Loads engine.model with the engine that score.engine names; `auto` must be decided.

    Raises:
        InputError: the model can't be used with the settings.
    """
    if config.score.engine == "vllm":
        return VllmScorer(config)
    return PackedScorer(config) if config.score.engine == "packed" else HuggingFaceScorer(config)


class VllmScorer:
    """vLLM with its core in this process: scoring is all prefill, there is nothing to schedule meanwhile."""

    def __init__(self, config: RunConfig) -> None:
        from music_ray.engines.vllm_settings import device_facts, model_facts
        from music_ray.engines.vllm_steps import StepCore
        from music_ray.score.pooling import pooling_arguments, pooling_params

        engine = config.engine
        facts = model_facts(engine, engine.model)
        from vllm import __version__

        self._version = __version__
        arguments, line = pooling_arguments(engine, device_facts(engine), facts)
        say(f"score: vLLM {__version__} with {engine.model}: {line}")
        self._params = pooling_params
        try:
            self._core = StepCore(arguments, engine_threads(engine))
        except ValueError as error:  # vLLM's word for settings that do not fit the model or the machine
            reason = " ".join(str(error).split())
            raise InputError(
                f"vLLM refuses {engine.model} with the engine section's settings: {reason}; mend them, or "
                "use score.engine=huggingface"
            ) from None

    def describe(self) -> str:
        """See Scorer.describe."""
        return f"vllm {self._version}"

    async def score(self, token_ids: list[int]) -> Scored:
        """See Scorer.score."""
        output = await self._core.answer(token_ids, self._params())
        return Scored(float(output.outputs.data.reshape(-1)[0]), output.num_cached_tokens or 0)

    def forget_prefixes(self) -> None:
        """Empties the prefix cache; only while nothing is scored."""
        self._core.forget_prefixes()

    def close(self) -> None:
        """See Scorer.close."""
        self._core.close()


class HuggingFaceScorer:
    """transformers, with what waits sorted by length and padded in batches; one batch runs at a time."""

    _attention = "auto"

    def __init__(self, config: RunConfig) -> None:
        import torch
        import transformers

        from music_ray import reward_model

        engine = config.engine
        if engine.gpus_per_engine and not torch.cuda.is_available():
            raise InputError(
                f"engine.gpus_per_engine is {engine.gpus_per_engine}, but torch sees no GPU: set it to 0"
            )
        self._version = transformers.__version__
        # One thread loads and computes: OpenMP keeps a team for each, and two are in each other's way.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="huggingface-scores")
        self._thread.submit(compute_with, engine_threads(engine)).result()
        loading = self._thread.submit(
            reward_model.load_reward_model, engine.model, dtype=engine.dtype, attention=self._attention
        )
        self._classifier = loading.result().to("cuda" if engine.gpus_per_engine else "cpu").eval()
        self._batch_size = config.score.batch_size
        self._at_once = _BATCHES_AT_ONCE * self._batch_size
        self._waiting: list[tuple[list[int], asyncio.Future[Scored]]] = []
        self._working: asyncio.Task[None] | None = None

    def describe(self) -> str:
        """See Scorer.describe."""
        return f"transformers {self._version}"

    async def score(self, token_ids: list[int]) -> Scored:
        """See Scorer.score."""
        future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self._waiting.append((token_ids, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # the others of the same task
            taken, self._waiting = self._waiting[: self._at_once], self._waiting[self._at_once :]
            try:
                scores = await asyncio.wrap_future(self.submit([ids for ids, _ in taken]))
            except RuntimeError as error:  # torch's word for a device without memory, or one that is gone
                _fail(taken, EngineDeadError(f"{type(error).__name__}: {error}"))
                continue
            except Exception as error:  # a bug: those who wait raise it
                _fail(taken, error)
                continue
            for (_, future), score in zip(taken, scores, strict=True):
                if not future.done():  # else its waiter was cancelled
                    future.set_result(Scored(score))

    def submit(self, conversations: list[list[int]], batch_size: int | None = None) -> Future[list[float]]:
        """Scores of all of them in their order; batches are made of conversations of like length."""
        from music_ray import reward_model

        size = batch_size or self._batch_size
        return self._thread.submit(reward_model.score, self._classifier, conversations, batch_size=size)

    def close(self) -> None:
        """See Scorer.close."""
        self._thread.shutdown(cancel_futures=True)


class PackedScorer(HuggingFaceScorer):
    """transformers, with what waits in packs: no padding, and common beginnings computed once."""

    _attention = "segments"

    def __init__(self, config: RunConfig) -> None:
        if config.engine.gpus_per_engine:
            raise InputError(
                "score.engine=packed computes on the CPU: leave engine.gpus_per_engine at 0, or use "
                "score.engine=vllm, which computes common beginnings once on GPUs"
            )
        super().__init__(config)
        self._pack_tokens = config.score.pack_tokens
        self._at_once = _SORTED_AT_ONCE
        self._thread.submit(self._check_model).result()

    def submit(self, conversations: list[list[int]], batch_size: int | None = None) -> Future[list[float]]:
        """Scores of all of them in their order."""
        from music_ray.score.packed import score_packed

        return self._thread.submit(
            score_packed, self._classifier, conversations, pack_tokens=self._pack_tokens
        )

    def _check_model(self) -> None:
        """A model with an attention of its own would let conversations of a pack see each other."""
        from music_ray.score.packed import score_packed

        size = self._classifier.config.get_text_config().vocab_size
        # Alike but for the end: transformers itself tells apart conversations that share nothing.
        two = [[(7 * place + last * (place > 9)) % size for place in range(1, 14)] for last in (1, 4)]
        together = score_packed(self._classifier, two, pack_tokens=64)
        alone = [score_packed(self._classifier, [one], pack_tokens=64)[0] for one in two]
        for one, other in zip(together, alone, strict=True):
            if not math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3):
                raise InputError(
                    f"score.engine=packed can't score a {type(self._classifier).__name__}: beside another "
                    f"conversation its score is {one:.4g} and not {other:.4g}; use score.engine=huggingface"
                )


def _fail(taken: list[tuple[list[int], asyncio.Future[Scored]]], error: Exception) -> None:
    for _, future in taken:
        if not future.done():
            future.set_exception(error)
