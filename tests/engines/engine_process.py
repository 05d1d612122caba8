"""A process that holds a vLLM engine, to be killed: says "ready" when it has answered once.

    python -m tests.engines.engine_process MODEL_FOLDER ARRANGEMENT TENSOR_PARALLEL_SIZE

A line on standard input lets it return from main without closing the engine.
"""

import asyncio
import sys

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.base import Prompt
from music_ray.engines.vllm_local import VllmEngine


def main() -> None:
    model, arrangement, split = sys.argv[1:]
    engine = VllmEngine(
        EngineConfig(
            model=model, arrangement=arrangement, tensor_parallel_size=int(split), max_model_len=512,
            max_num_seqs=8, kv_cache_gib=0.25, enforce_eager=True,
        )
    )  # fmt: skip
    prompt = Prompt([{"role": "user", "content": "Hello"}])
    answer = asyncio.run(engine.generate(prompt, SamplingConfig(max_tokens=4), 1))
    assert answer.completion_tokens == 4
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
