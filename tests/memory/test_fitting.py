"""Refusals with their remedies: exact messages, and remedies that hold what they promise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.config import TrainConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.memory.fitting import (
    USABLE,
    first_remedy,
    gpu_refusal,
    machine_memory,
    machine_refusal,
)
from music_ray.memory.gpus import GIB, MIB, Gpu
from music_ray.memory.model_size import model_size
from music_ray.memory.training import training_memory
from tests.memory.test_training_memory import NAMES, SECTIONS, gemma_9b


def gpu(name: str) -> Gpu:
    return Gpu(name, MIB[name] * 2**20)


PAPER: dict[str, Any] = {
    "num_workers": 8, "use_gpu": True, "precision": "bfloat16", "activation_checkpointing": True,
}  # fmt: skip


def test_a_gpu_that_is_too_small_is_refused_with_the_figures_and_the_remedy() -> None:
    assert gpu_refusal(gemma_9b(), TrainConfig(**PAPER), gpu("L4")) == (
        "training google/gemma-2-9b-it with 8 worker(s) takes about 30.2 GiB of each GPU (parameters 2.2, "
        "gradients 4.3, optimizer 12.9, activations 2.6, gathered weights and buffers 6.7, libraries 1.5), "
        "but one L4 has 22.5 GiB, 21.4 GiB to plan with: set train.zero.offload_optimizer=cpu (about 12.4 "
        "GiB a GPU, and 29.0 GiB of its machine's memory for each worker)"
    )
    assert gpu_refusal(gemma_9b(), TrainConfig(**PAPER), gpu("A100-40")) == ""


@pytest.mark.parametrize(
    ("changes", "memory", "keys"),
    [
        ({"activation_checkpointing": False}, "A100-40", "train.activation_checkpointing=true"),
        ({"micro_tokens": 32_768}, "A100-40", "train.micro_tokens=4096"),
        ({"packing": "padded", "micro_pairs": 16}, "A100-40", "train.packing=shared_prefix"),
        (
            {"num_workers": 1},
            "L4",
            "train.zero.offload_optimizer=cpu train.zero.offload_parameters=cpu",
        ),
        (
            {"num_workers": 1, "zero": {"offload_optimizer": "cpu", "offload_parameters": "cpu"}},
            "V100-16",
            "",
        ),
    ],
)
def test_the_first_change_that_fits_is_named(changes: dict[str, Any], memory: str, keys: str) -> None:
    refusal = gpu_refusal(gemma_9b(), TrainConfig.model_validate(PAPER | changes), gpu(memory))
    assert (f"to plan with: set {keys} (about" in refusal) if keys else refusal == ""


def test_where_nothing_helps_it_says_so() -> None:
    size = model_size("google/gemma-2-27b")
    assert size is not None
    refusal = gpu_refusal(size, TrainConfig(**PAPER), Gpu("GPU", 4 * GIB))
    assert refusal.endswith(
        "3.8 GiB to plan with: use larger GPUs, a smaller model or fewer layers (train.num_layers)"
    )


def test_a_machine_that_is_too_small_is_refused() -> None:
    size = gemma_9b()
    train = TrainConfig(num_layers=2, max_tokens=512, micro_tokens=1024)
    need = machine_memory(size, train)
    assert machine_refusal(size, train, need) == ""
    assert machine_refusal(size, train, need - GIB).startswith(
        "training google/gemma-2-9b-it on CPUs takes about "
    )
    one = machine_memory(size, train.model_copy(update={"num_workers": 1}))
    assert machine_refusal(size, train, one).endswith(
        f"GiB are available: set train.num_workers=1 (about {one / GIB:.1f} GiB in all)"
    )


@given(section=SECTIONS, name=NAMES, workers=st.sampled_from([1, 2, 8, 64]), room=st.floats(8, 200))
@settings(max_examples=100)
def test_a_remedy_fits_when_it_is_followed(
    section: dict[str, Any], name: str, workers: int, room: float
) -> None:
    size, train = model_size(name), TrainConfig.model_validate(section | {"num_workers": workers})
    assert size is not None
    remedy = first_remedy(size, train, USABLE * room * GIB)
    if remedy is None:
        return
    # As the command line takes it.
    values = apply_overrides({"name": "t", "train": train.model_dump()}, remedy.keys.split())
    followed = resolve_config(values).train
    plan = training_memory(size, followed, followed.num_workers)
    need = plan.total if followed.use_gpu else machine_memory(size, followed)
    assert need == pytest.approx(remedy.need) and need <= USABLE * room * GIB
    assert followed.max_tokens == train.max_tokens and followed.pairs_per_step == train.pairs_per_step
