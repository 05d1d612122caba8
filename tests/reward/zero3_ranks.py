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


def object_store(location: str) -> tuple[Any, str]:
    """Stands in for an object store: another file system class, no renames, folders as needed.

    Every object that is sent is noted beside the run folder, see sent_objects.
    """
    import pyarrow.fs as pafs
    from fsspec.implementations.local import LocalFileSystem

    root = os.path.abspath(location)

    class Store(LocalFileSystem):
        def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            if "w" in mode:
                os.makedirs(os.path.dirname(root), exist_ok=True)
                with open(f"{root}.sent", "a") as file:
                    file.write(os.path.relpath(path, root) + "\n")
            return super()._open(path, mode, **options)

    return pafs.PyFileSystem(pafs.FSSpecHandler(Store(auto_mkdir=True))), root


def sent_objects(run: RunDir) -> list[str]:
    """Paths inside a run folder behind object_store, one for each time that an object was sent."""
    with open(f"{run.root}.sent") as file:
        return file.read().splitlines()


def train(
    run: RunDir, world_size: int, *, kill_at_step: int | None = None, full_disk_on_rank: int | None = None
) -> list[int]:
    """The train stage without Ray; returns the ranks' exit codes.

    Args:
        kill_at_step: all ranks die in the middle of this step (from 0), as by kill -9.
        full_disk_on_rank: checkpoints can't be written on this rank.
    """
    task, _ = prepare(run)
    remote = not run.is_local
    return call_ranks(_train_rank, world_size, task, kill_at_step, full_disk_on_rank, remote)


def _train_rank(
    task: dict[str, Any], kill_at_step: int | None, full_disk_on_rank: int | None, remote: bool
) -> None:
    import errno

    import safetensors.torch
    import torch.distributed as dist

    from music_ray.reward.worker import train_worker
    from music_ray.reward.zero3 import set_learning_rate

    def die_in_step(engine: Any, value: float) -> None:
        # Called after the passes and before the optimizer's step.
        if dying.pop(0) == kill_at_step:
            os._exit(KILLED)
        set_learning_rate(engine, value)

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if remote:
        import music_ray.rundir as rundir

        rundir.open_filesystem = object_store
    if kill_at_step is not None:
        import music_ray.reward.zero3 as zero3

        first = _first_step(task)
        dying = list(range(first, kill_at_step + 1))
        zero3.set_learning_rate = die_in_step
    if full_disk_on_rank == dist.get_rank():
        safetensors.torch.save_file = no_space
    train_worker(task)


def _first_step(task: dict[str, Any]) -> int:
    from music_ray.config import RunConfig
    from music_ray.reward.checkpoint import complete_steps

    return (complete_steps(RunDir(RunConfig.model_validate(task["config"]))) or [0])[-1]


def outcome(run: RunDir) -> dict[str, Any]:
    """What rank 0 wrote at its end."""
    import json

    return json.loads(run.read_text(*OUTCOME))


def measure_partitions(run: RunDir, world_size: int) -> list[dict[str, Any]]:
    """What each rank holds after the engine is built: elements here, elements in all, shape in use."""
    import json
    from pathlib import Path

    task, _ = prepare(run)
    with tempfile.TemporaryDirectory() as folder:
        assert call_ranks(_measure_rank, world_size, task, folder) == [0] * world_size
        return [json.loads(Path(f"{folder}/{rank}.json").read_text()) for rank in range(world_size)]


def _measure_rank(task: dict[str, Any], folder: str) -> None:
    import json
    from pathlib import Path

    import torch.distributed as dist

    from music_ray.config import RunConfig
    from music_ray.reward.zero3 import build_engine, prepare_process

    train_config = RunConfig.model_validate(task["config"]).train
    prepare_process(train_config)
    engine = build_engine(
        train_config, task["model"], head_seed=task["head_seed"], pad_token_id=task["pad_token_id"]
    )
    parameters = dict(engine.module.named_parameters())
    facts = {
        "kept": sum(one.ds_tensor.numel() for one in parameters.values()),
        "total": sum(one.ds_numel for one in parameters.values()),
        "whole_outside_passes": sum(one.numel() for one in parameters.values()),
        "buffers": {
            name: [str(one.dtype), one.float().sum().item()]
            for name, one in engine.module.classifier.named_buffers()
        },
        "head": [float(value) for value in parameters["classifier.score.weight"].ds_tensor],
    }
    Path(f"{folder}/{dist.get_rank()}.json").write_text(json.dumps(facts))


def load_newest_checkpoint(run: RunDir, world_size: int) -> str:
    """Loads the newest checkpoint into a fresh engine; the message it is refused with, or ''."""
    from pathlib import Path

    task, _ = prepare(run)
    with tempfile.TemporaryDirectory() as folder:
        call_ranks(_load_rank, world_size, task, f"{folder}/message")
        return Path(f"{folder}/message").read_text()


def _load_rank(task: dict[str, Any], message_file: str) -> None:
    from pathlib import Path

    from music_ray.config import RunConfig
    from music_ray.errors import RunFolderError
    from music_ray.reward import checkpoint
    from music_ray.reward.zero3 import build_engine, prepare_process

    run = RunDir(RunConfig.model_validate(task["config"]))
    prepare_process(run.config.train)
    engine = build_engine(
        run.config.train, task["model"], head_seed=task["head_seed"], pad_token_id=task["pad_token_id"]
    )
    message = ""
    try:
        checkpoint.load(run, engine, checkpoint.complete_steps(run)[-1])
    except RunFolderError as error:
        message = str(error)
    Path(message_file).write_text(message)
