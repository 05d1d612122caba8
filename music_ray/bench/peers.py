"""Other ways of making the requests of rollouts, each in a process of its own that is idle meanwhile.

`LLM` is vLLM's offline class with the settings of our engine. `ray` is ray.data.llm with a processor a
half-turn. This module knows nothing of rollouts.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

from music_ray.bench.replay import Measured, Request
from music_ray.progress import quieten_libraries

_WARM_UP = Request(list(range(10, 40)), 8, 1, 0.5, 0)


class Peer:
    """A process that runs batches of requests, one batch after the other."""

    def __init__(self, target: Any, arguments: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.start_seconds: float = self._receive()
        """From the start of the process to the first token, imports included."""

    def run(self, batches: list[list[Request]]) -> Measured:
        """Runs the batches with an empty prefix cache at the beginning."""
        self._connection.send(batches)
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(timeout=60)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise RuntimeError("a peer's process ended; its messages are above") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def serve_llm(connection: Connection, arguments: dict[str, Any]) -> None:
    """vLLM's LLM class in this process, like our engine on the CPU."""
    started = time.perf_counter()
    quieten_libraries()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM

    llm = LLM(**arguments)

    def run(batches: list[list[Request]]) -> Measured:
        llm.reset_prefix_cache()
        calls = [(_prompts(batch), _parameters(batch)) for batch in batches]
        began = time.perf_counter()
        outputs = [
            out for prompts, sampling in calls for out in llm.generate(prompts, sampling, use_tqdm=False)
        ]
        return measured_outputs(time.perf_counter() - began, outputs)

    run([[_WARM_UP]])
    connection.send(time.perf_counter() - started)
    while True:
        try:
            batches = connection.recv()
        except EOFError:
            return
        connection.send(run(batches))


def measured_outputs(seconds: float, outputs: list[Any]) -> Measured:
    """The token counts of vLLM's outputs."""
    return Measured(
        seconds,
        sum(len(output.prompt_token_ids or ()) for output in outputs),
        sum(output.num_cached_tokens or 0 for output in outputs),
        sum(len(output.outputs[0].token_ids) for output in outputs),
    )


def _prompts(batch: list[Request]) -> list[Any]:
    return [{"prompt_token_ids": request.token_ids} for request in batch]


def _parameters(batch: list[Request]) -> list[Any]:
    from vllm import SamplingParams

    return [SamplingParams(**_sampling(request)) for request in batch]


def _sampling(request: Request) -> dict[str, Any]:
    return {
        "temperature": request.temperature,
        "max_tokens": request.num_tokens,
        "ignore_eos": True,
        "seed": request.seed,
        "skip_special_tokens": False,
    }


def serve_ray(connection: Connection, arguments: dict[str, Any]) -> None:
    """ray.data.llm: every batch is a dataset of its own, with a processor that starts an engine.

    A batch counts as long as its longest request waited and ran, as ray.data.llm reports it: all of a
    batch are sent at once, and what Ray and the start of the engine take besides is not counted.
    """
    quieten_libraries()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # as elsewhere, no worker process besides
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=2 * cores, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    engine = {name: value for name, value in arguments.items() if name != "model"}

    def run(batch: list[Request]) -> Measured:
        config = vLLMEngineProcessorConfig(
            model_source=arguments["model"],
            engine_kwargs=dict(engine),
            batch_size=len(batch),
            concurrency=1,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
            placement_group_config={"bundles": [{"CPU": cores}]},  # else it asks for a GPU
            log_engine_metrics=False,
            max_pending_requests=len(batch),
        )
        processor = build_processor(config)
        rows = [{"tokenized_prompt": one.token_ids, "sampling_params": _sampling(one)} for one in batch]
        done = processor(ray.data.from_items(rows, override_num_blocks=1)).materialize().take_all()
        return Measured(
            max(float(row["time_taken_llm"]) for row in done),
            sum(int(row["num_input_tokens"]) for row in done),
            0,  # it does not say what came from the cache
            sum(int(row["num_generated_tokens"]) for row in done),
        )

    try:
        began = time.perf_counter()
        run([_WARM_UP])
        connection.send(time.perf_counter() - began)
        while True:
            took = [run(batch) for batch in connection.recv()]
            connection.send(
                Measured(
                    sum(one.seconds for one in took),
                    sum(one.prompt_tokens for one in took),
                    0,
                    sum(one.completion_tokens for one in took),
                )
            )
    except EOFError:
        ray.shutdown()
    except Exception as error:  # deliberate: whatever keeps it from running is what the table says
        connection.send(f"{type(error).__name__}: {' '.join(str(error).split())[:600]}")
        ray.shutdown()
