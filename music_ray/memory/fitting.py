"""Whether a training fits its GPUs or its machine, and which change of the train section would make it fit.

Changes that leave the result as it is are tried first, alone and then together; more workers cost more
money and come next; LoRA trains something else and comes last. The module knows numbers and keys; who
refuses, and when, is decided by its callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from music_ray.config import LoraConfig, TrainConfig
from music_ray.memory.gpus import GIB, Gpu
from music_ray.memory.model_size import ModelSize
from music_ray.memory.training import MemoryPlan, training_memory

USABLE = 0.95
"""Share of a GPU's memory that is planned with: the allocator leaves gaps between blocks."""
_MOST_WORKERS = 256

Change = Callable[[TrainConfig], TrainConfig]


@dataclass(frozen=True)
class Remedy:
    """A change with which the training fits."""

    keys: str
    """As on the command line: `train.activation_checkpointing=true`."""
    need: float
    """What it then takes, in bytes."""
    host: float
    """Bytes that each worker then takes of its machine's memory because of offload."""


def gpu_refusal(size: ModelSize, train: TrainConfig, gpu: Gpu) -> str:
    """Why a training can't run on a GPU for each worker, with the remedy; empty where it can."""
    room = USABLE * gpu.memory
    plan = training_memory(size, train, train.num_workers)
    if plan.total <= room:
        return ""
    return (
        f"training {train.base_model} with {train.num_workers} worker(s) takes about {gib(plan.total)} of "
        f"each GPU ({parts(plan)}), but one {gpu.name} has {gib(gpu.memory)}, {gib(room)} to plan with: "
        + _advice(first_remedy(size, train, room), "a GPU", "use larger GPUs")
    )


def machine_refusal(size: ModelSize, train: TrainConfig, available: float) -> str:
    """Why a training on CPUs does not fit one machine that runs all workers; empty where it does.

    Args:
        available: bytes of memory.
    """
    need = machine_memory(size, train)
    if need <= available:
        return ""
    plan = training_memory(size, train, train.num_workers)
    return (
        f"training {train.base_model} on CPUs takes about {gib(need)} of memory over {train.num_workers} "
        f"worker(s) (each: {parts(plan)}), {gib(available)} are available: "
        + _advice(first_remedy(size, train, available), "in all", "use GPUs")
    )


def machine_memory(size: ModelSize, train: TrainConfig) -> float:
    """Bytes that all workers on CPUs take together: of a step, or at the export if that is more."""
    plan = training_memory(size, train, train.num_workers)
    states = plan.parameters + plan.gradients + plan.optimizer + plan.process
    return max(train.num_workers * plan.total, train.num_workers * states + plan.export)


def first_remedy(size: ModelSize, train: TrainConfig, room: float) -> Remedy | None:
    """The first change with which the need is within `room` bytes; None where there is none."""
    for changed in _alternatives(train):
        plan = training_memory(size, changed, changed.num_workers)
        need = plan.total if changed.use_gpu else machine_memory(size, changed)
        if need <= room:
            return Remedy(_difference(train, changed), need, plan.host)
    return None


def parts(plan: MemoryPlan) -> str:
    """The parts of a plan in a line, in GiB."""
    named = {
        "parameters": plan.parameters,
        "gradients": plan.gradients,
        "optimizer": plan.optimizer,
        "activations": plan.activations,
        "gathered weights and buffers": plan.working,
        "libraries": plan.process,
    }
    return ", ".join(f"{name} {value / GIB:.1f}" for name, value in named.items())


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.1f} GiB"


def _advice(remedy: Remedy | None, each: str, otherwise: str) -> str:
    if remedy is None:
        return f"{otherwise}, a smaller model or fewer layers (train.num_layers)"
    host = f", and {gib(remedy.host)} of its machine's memory for each worker" if remedy.host else ""
    return f"set {remedy.keys} (about {gib(remedy.need)} {each}{host})"


# -- what can be changed ---------------------------------------------------------------------------


def _alternatives(train: TrainConfig) -> Iterator[TrainConfig]:
    """Changed sections in the order in which they are tried."""
    free = [_recompute, _shorter_passes]
    if train.use_gpu:
        free += [_offload_optimizer, _offload_parameters]
    lora = train if train.lora is not None else train.model_copy(update={"lora": LoraConfig()})
    tried = [train]
    for start in (train, lora):
        together = start
        cheaper = [start, *(change(start) for change in free)]
        for change in free:
            together = change(together)
            cheaper.append(together)
        others = [*_other_workers(start), *_other_workers(together)]
        for one in (*cheaper, *others):
            if one not in tried:
                tried.append(one)
                yield one


def _recompute(train: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"activation_checkpointing": True})


def _shorter_passes(train: TrainConfig) -> TrainConfig:
    """Passes of one pair: less does not exist."""
    if train.packing != "padded":
        return train.model_copy(update={"micro_tokens": min(train.micro_tokens, 2 * train.max_tokens)})
    if train.attention == "auto":
        shortest = {"packing": "shared_prefix", "micro_tokens": min(train.micro_tokens, 2 * train.max_tokens)}
        return train.model_copy(update=shortest)
    return train.model_copy(update={"micro_pairs": 1})


def _offload_optimizer(train: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"zero": train.zero.model_copy(update={"offload_optimizer": "cpu"})})


def _offload_parameters(train: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"zero": train.zero.model_copy(update={"offload_parameters": "cpu"})})


def _other_workers(train: TrainConfig) -> Iterator[TrainConfig]:
    """More GPUs; on one machine's CPUs fewer processes."""
    number = train.num_workers
    if not train.use_gpu:
        if number > 1:
            yield train.model_copy(update={"num_workers": 1})
        return
    # A step has a pair for each worker at least.
    while 2 * number <= min(_MOST_WORKERS, train.pairs_per_step):
        number *= 2
        yield train.model_copy(update={"num_workers": number})


def _difference(before: TrainConfig, after: TrainConfig) -> str:
    """The keys that differ, as on the command line."""
    old, new = (_flat(one.model_dump(exclude={"lora"})) for one in (before, after))
    changes = [f"train.{name}={_shown(value)}" for name, value in new.items() if old[name] != value]
    if after.lora is not None and before.lora is None:
        changes.append(f"train.lora.rank={after.lora.rank}")
    return " ".join(changes)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
