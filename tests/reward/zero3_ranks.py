"""Ranks without Ray: the real worker function in forked processes on this machine.

A fork server imports torch and DeepSpeed once, in a process that has no threads yet; each rank is a
fork of it and starts in a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from typing import Any

from music_ray.reward.train import prepare
from music_ray.reward.worker import OUTCOME
from music_ray.rundir import RunDir

_PRELOAD = [
    "torch",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "transformers.models.gemma2.modeling_gemma2",
    "transformers.models.llama.modeling_llama",
    "deepspeed.runtime.engine",
    "peft",
]
KILLED = 9


def start_server() -> Any:
    """The multiprocessing context whose processes fork from a server with warm imports."""
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", DS_LOG_LEVEL="error")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def call_ranks(function: Callable[..., None], world_size: int, *args: Any, limit: float = 120) -> list[int]:
    """Calls function(*args) in `world_size` processes of one gloo group; returns their exit codes."""
    context = start_server()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_rank, args=(rank, world_size, f"{folder}/store", function, args))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(limit)
        hung = [process for process in processes if process.is_alive()]
        for process in hung:
            process.kill()
        assert not hung, f"{len(hung)} of {world_size} ranks still ran after {limit} s"
        return [process.exitcode for process in processes]


def _rank(rank: int, world_size: int, store: str, function: Callable[..., None], args: Any) -> None:
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    dist.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
    )
    function(*args)
    dist.barrier()
    os._exit(0)


def train(run: RunDir, world_size: int, *, kill_at_step: int | None = None) -> list[int]:
    """The train stage without Ray; `kill_at_step` kills all ranks in that step (from 0), as -9 does."""
    task, _ = prepare(run)
    return call_ranks(_train_rank, world_size, task, kill_at_step)


def _train_rank(task: dict[str, Any], kill_at_step: int | None) -> None:
    from music_ray.reward.loop import Trainer
    from music_ray.reward.worker import train_worker

    if kill_at_step is not None:
        micro_step = Trainer._micro_step
        counted = {"step": -1}
        step = Trainer.step

        def counting_step(self: Any, number: int) -> Any:
            counted["step"] = number
            return step(self, number)

        def killing_micro_step(self: Any, *args: Any) -> None:
            micro_step(self, *args)
            if counted["step"] == kill_at_step:
                os._exit(KILLED)

        Trainer.step, Trainer._micro_step = counting_step, killing_micro_step  # type: ignore[method-assign]
    train_worker(task)


def outcome(run: RunDir) -> dict[str, Any]:
    """What rank 0 wrote at its end."""
    import json

    return json.loads(run.read_text(*OUTCOME))
