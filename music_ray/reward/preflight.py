"""Checks before the workers start: CPUs, GPUs, memory, disk. A refusal in a second beats a hang."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from music_ray.config import TrainConfig
from music_ray.config.labels import shown
from music_ray.errors import ConfigError, EnvironmentLacksError, InputError
from music_ray.memory.fitting import gib, gpu_refusal, machine_refusal
from music_ray.memory.gpus import Gpu, configured_gpu
from music_ray.memory.model_size import model_size
from music_ray.memory.training import bytes_per_weight
from music_ray.ray_session import running_cluster
from music_ray.reward.data import PairTokens
from music_ray.reward.token_file import TokenFile
from music_ray.rundir import RunDir


def check_pairs(train: TrainConfig, tokens: TokenFile) -> None:
    """Refuses a step that would hold a pair twice.

    Raises:
        InputError: fewer pairs than train.pairs_per_step.
    """
    if tokens.num_pairs < train.pairs_per_step:
        raise InputError(
            f"train.pairs_per_step ({train.pairs_per_step}) exceeds the {tokens.num_pairs} pairs that can be "
            "trained on: lower it, or generate more pairs"
        )


def check_cluster(train: TrainConfig, now: dict[str, float], largest: dict[str, float]) -> str | None:
    """Whether the workers fit the cluster.

    Args:
        now: resources of the cluster's present nodes with train.node_labels, in Ray's names.
        largest: what its autoscaler may grow it to.

    Returns:
        A sentence for the user when the workers must wait for nodes, else None.

    Raises:
        ConfigError: they will never fit.
    """
    wants = [("CPU", train.cpus_per_worker, f"x train.cpus_per_worker ({train.cpus_per_worker:g})")]
    if train.use_gpu:
        wants.append(("GPU", 1.0, "with a GPU each"))
    where = f" on nodes with {shown(train.node_labels)}" if train.node_labels else ""
    waiting = None
    for kind, each, what in wants:
        total = train.num_workers * each
        if total > largest.get(kind, 0.0):
            raise ConfigError(
                f"train.num_workers ({train.num_workers}) {what} exceeds the cluster's "
                f"{largest.get(kind, 0.0):g} {kind}s{where}: lower train.num_workers or add nodes"
            )
        if total > now.get(kind, 0.0):
            there = f"the cluster has {now.get(kind, 0.0):g} now{where}"
            waiting = f"train: {total:g} {kind}s wanted, {there}: waiting for it to grow"
    return waiting


def check_memory(run: RunDir, model: str, pairs: PairTokens) -> None:
    """Refuses a training that can't fit the GPUs that `costs` names, or this machine without GPUs.

    A model of an unknown family, GPUs that nobody has named yet and the nodes of a cluster are not
    checked here: see check_gpu for the workers' own look.

    Raises:
        EnvironmentLacksError: with the figures, and the change that would make it fit.
    """
    import psutil

    train = run.config.train
    if train.use_gpu:
        check_gpu(train, model, pairs, configured_gpu(run.config.costs))
    elif running_cluster(run.config) is None:
        size = model_size(model, train.revision)
        available = psutil.virtual_memory().available
        if size is not None and (problem := machine_refusal(size, as_long_as(train, pairs), available)):
            raise EnvironmentLacksError(problem)


def check_gpu(train: TrainConfig, model: str, pairs: PairTokens, gpu: Gpu | None) -> None:
    """Refuses a training that does not fit a GPU for each worker; passes where the GPU is not known.

    Raises:
        EnvironmentLacksError: with the figures, and the change that would make it fit.
    """
    size = model_size(model, train.revision)
    if gpu is None or size is None:
        return
    if problem := gpu_refusal(size, as_long_as(train, pairs), gpu):
        raise EnvironmentLacksError(problem)


def own_gpu(device: Any) -> Gpu:
    """The GPU of this process, with the memory that it really has."""
    import torch

    facts = torch.cuda.get_device_properties(device)
    return Gpu(facts.name, float(facts.total_memory))


def as_long_as(train: TrainConfig, pairs: PairTokens) -> TrainConfig:
    """The section with the lengths that the pairs really have: no pass is longer than they allow.

    A pack holds at most its share of a step's longest pairs, and the longest pair beside it (packs are
    filled longest pair first).
    """
    longest = int(pairs.lengths.max())
    step = 2 * int(np.sort(pairs.lengths)[-train.pairs_per_step :].sum())
    most = -(-step // train.num_workers) + 2 * longest
    return train.model_copy(update={"max_tokens": longest, "micro_tokens": min(train.micro_tokens, most)})


def check_disk(run: RunDir, model: str) -> None:
    """Refuses a start whose checkpoints and export would fill the disk, for local model folders.

    Raises:
        EnvironmentLacksError: it is too small, with both numbers.
    """
    train = run.config.train
    if not Path(model).is_dir() or not run.is_local:
        return
    need = disk_bytes(train, num_parameters(Path(model), train.num_layers))
    Path(run.path()).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run.path()).free
    if need > free:
        raise EnvironmentLacksError(
            f"{most_checkpoints(train)} checkpoints and the model need about {gib(need)}, "
            f"{run.display()} has {gib(free)} free: free some, or lower train.keep_checkpoints"
        )


def disk_bytes(train: TrainConfig, parameters: int) -> float:
    """Estimated bytes on the disk: checkpoints of 12 bytes a trained weight, and the exported model."""
    trained = parameters if train.lora is None else 0
    return most_checkpoints(train) * 12 * trained + bytes_per_weight(train) * parameters


def most_checkpoints(train: TrainConfig) -> int:
    """Checkpoints on the disk while the newest is written: those that are kept, it, and the best."""
    return train.keep_checkpoints + 1 + (train.evaluate_every is not None)


def num_parameters(folder: Path, num_layers: int | None) -> int:
    """Weights of a model folder without its language-model head, from the files' headers alone."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        for name, facts in header.items():
            layer = re.search(r"\.layers\.(\d+)\.", name)
            beyond = layer is not None and num_layers is not None and int(layer[1]) >= num_layers
            if name != "__metadata__" and not beyond and not name.startswith("lm_head."):
                size = 1
                for length in facts["shape"]:
                    size *= length
                total += size
    return total
