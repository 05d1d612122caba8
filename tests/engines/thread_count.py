"""Prints how many threads vLLM computes with, as the last line on standard output: "threads 2".

python -m tests.engines.thread_count MODEL_FOLDER ARRANGEMENT
"""

import asyncio
import sys
from typing import Any

import psutil
import torch

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.base import Prompt
from music_ray.engines.vllm_local import VllmEngine


def threads_of_steps(engine: Any) -> int:
    """What torch says in the thread that steps."""
    core, found = engine.core._engine, []
    step = core.step
    core.step = lambda: found.append(torch.get_num_threads()) or step()
    asyncio.run(
        engine.generate(Prompt([{"role": "user", "content": "Hello"}]), SamplingConfig(max_tokens=4), 1)
    )
    (threads,) = set(found)
    return threads


def threads_of_children() -> int:
    """What the core's process was given."""
    children = psutil.Process().children(recursive=True)
    (threads,) = {one.environ()["OMP_NUM_THREADS"] for one in children if one.name().startswith("VLLM::")}
    return int(threads)


def main() -> None:
    model, arrangement = sys.argv[1:]
    engine = VllmEngine(
        EngineConfig(
            model=model, arrangement=arrangement, max_model_len=512, max_num_seqs=8, kv_cache_gib=0.25,
            enforce_eager=True,
        )
    )  # fmt: skip
    threads = threads_of_steps(engine) if arrangement == "in_process" else threads_of_children()
    engine.close()
    sys.stdout.write(f"threads {threads}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
