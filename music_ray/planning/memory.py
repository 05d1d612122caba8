"""The plan's view of the training's memory: its parts for each worker, and whether GPUs can hold them.

The figures are memory/training.py's. A GPU that is too small is a warning here and a refusal at the
start; without GPUs the start compares with the memory that is free then, and the plan only says the need.
"""

from __future__ import annotations

from music_ray.memory.fitting import gpu_refusal
from music_ray.memory.gpus import GIB, configured_gpu
from music_ray.memory.model_size import ModelSize, model_size
from music_ray.memory.training import bytes_per_weight, num_trained, tokens_of_a_pass, training_memory
from music_ray.planning.known import Known
from music_ray.planning.plan import Plan, Quantity


def plan_memory(known: Known, plan: Plan) -> None:
    """Adds train.memory and its parts to the plan, and warns where it exceeds the GPU of `costs`."""
    train = known.config.train
    size = model_size(train.base_model, train.revision)
    if size is None:
        plan.notes.append(
            f"memory of the training unknown: {train.base_model} has no config.json on this machine that "
            "says its size"
        )
        return
    memory = training_memory(size, train, train.num_workers)
    unit = "GiB a GPU" if train.use_gpu else "GiB a worker"
    basis = _bases(known, size)
    parts = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "working": memory.working,
        "libraries": memory.process,
    }
    for name, value in parts.items():
        plan.quantities[f"train.memory_{name}"] = Quantity.exactly(value / GIB, unit, basis[name])
    gpu = configured_gpu(known.config.costs) if train.use_gpu else None
    room = f"one {gpu.name} has {gpu.memory / GIB:.1f}" if gpu else f"{train.num_workers} worker(s)"
    plan.quantities["train.memory"] = Quantity.exactly(memory.total / GIB, unit, f"the sum; {room}")
    if memory.host:
        plan.quantities["train.memory_host"] = Quantity.exactly(
            memory.host / GIB, "GiB a worker", "of its machine's memory, because of train.zero.offload_*"
        )
    if train.use_gpu and gpu is None:
        plan.notes.append(
            "kind of the training GPUs unknown, so nobody can say yet whether the training fits: set "
            "costs.gpu, or costs.gpu_memory_gib"
        )
    if gpu is not None and (problem := gpu_refusal(size, train, gpu)):
        plan.warnings.append(problem)


def _bases(known: Known, size: ModelSize) -> dict[str, str]:
    """What each part is computed from."""
    train = known.config.train
    size = size.first_layers(train.num_layers)
    trained = f"{_billions(num_trained(size, train.lora))} trained"
    tokens = f"a pass of {tokens_of_a_pass(train):,} tokens"
    recomputed = ", layers computed again" if train.activation_checkpointing else ""
    apart = {
        "parameters": train.zero.offload_parameters != "none",
        "gradients": train.zero.offload_optimizer != "none",
        "optimizer": train.zero.offload_optimizer != "none",
    }
    bases = {
        "parameters": f"ZeRO-3: {bytes_per_weight(train)} bytes × {_billions(size.parameters)} / workers",
        "gradients": f"ZeRO-3: 4 bytes × {trained} / workers",
        "optimizer": f"ZeRO-3: 12 bytes × {trained} / workers",
        "activations": f"{tokens}{recomputed}",
        "working": "gathered weights, gradients on their way, the step's temporaries",
        "libraries": "a guess" if train.use_gpu else "measured on Linux",
    }
    return {name: "offloaded" if train.use_gpu and apart.get(name) else text for name, text in bases.items()}


def _billions(number: float) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e8 else f"{number / 1e6:.1f} million"
