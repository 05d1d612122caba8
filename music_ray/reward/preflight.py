"""Checks before the workers start: CPUs, GPUs, memory, disk. A refusal in a second beats a hang."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from music_ray.config import TrainConfig
from music_ray.errors import ConfigError, EnvironmentLacksError, InputError
from music_ray.reward.data import TokenFile
from music_ray.rundir import RunDir

_PROCESS_BYTES = 1.2 * 2**30
"""What a worker takes before it holds a model: Python, torch, transformers, DeepSpeed (measured)."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that training takes over all ranks."""

    memory: float
    disk: float


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
        now: resources of the cluster's present nodes, in Ray's names.
        largest: what its autoscaler may grow it to.

    Returns:
        A sentence for the user when the workers must wait for nodes, else None.

    Raises:
        ConfigError: they will never fit.
    """
    wants = [("CPU", train.cpus_per_worker, f"x train.cpus_per_worker ({train.cpus_per_worker:g})")]
    if train.use_gpu:
        wants.append(("GPU", 1.0, "with a GPU each"))
    waiting = None
    for kind, each, what in wants:
        total = train.num_workers * each
        if total > largest.get(kind, 0.0):
            raise ConfigError(
                f"train.num_workers ({train.num_workers}) {what} exceeds the cluster's "
                f"{largest.get(kind, 0.0):g} {kind}s: lower train.num_workers or add nodes"
            )
        if total > now.get(kind, 0.0):
            there = f"the cluster has {now.get(kind, 0.0):g} now"
            waiting = f"train: {total:g} {kind}s wanted, {there}: waiting for it to grow"
    return waiting


def check_space(run: RunDir, model: str) -> None:
    """Refuses a start that would run out of memory (CPU training) or disk, for local model folders.

    Raises:
        EnvironmentLacksError: either is too small, with both numbers.
    """
    import psutil

    train = run.config.train
    if not Path(model).is_dir() or not run.is_local:
        return
    need = footprint(train, num_parameters(Path(model), train.num_layers))
    have = psutil.virtual_memory().available
    if not train.use_gpu and need.memory > have:
        raise EnvironmentLacksError(
            f"training {train.base_model} on CPUs needs about {_gib(need.memory)} of memory over all "
            f"workers, {_gib(have)} are available: set train.lora or a smaller train.num_layers, or use GPUs"
        )
    Path(run.path()).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run.path()).free
    if need.disk > free:
        raise EnvironmentLacksError(
            f"{train.keep_checkpoints + 1} checkpoints and the model need about {_gib(need.disk)}, "
            f"{run.display()} has {_gib(free)} free: free some, or lower train.keep_checkpoints"
        )


def footprint(train: TrainConfig, parameters: int) -> Footprint:
    """Estimated bytes of a training run.

    A trained weight takes its working copy, a float32 gradient, the float32 master copy and two float32
    moments; a frozen one its working copy. The export holds all weights twice for a moment.
    """
    width = 4 if train.precision == "float32" else 2
    trained = parameters if train.lora is None else 0
    memory = 3 * width * parameters + 16 * trained + _PROCESS_BYTES * train.num_workers
    return Footprint(memory, (train.keep_checkpoints + 1) * 12 * trained + width * parameters)


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


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
