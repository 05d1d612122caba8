"""The training's memory in the plan: parts, the GPU it is compared with, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from music_ray.memory.gpus import GIB
from music_ray.memory.model_size import model_size
from music_ray.memory.training import training_memory
from music_ray.planning.make import make_plan
from tests.planning.conftest import MakeRun
from tests.planning.test_training import LLAMA

GPUS: dict[str, Any] = {
    "use_gpu": True, "precision": "bfloat16", "num_workers": 8, "activation_checkpointing": True,
}  # fmt: skip
UNKNOWN_GPU = (
    "kind of the training GPUs unknown, so nobody can say yet whether the training fits: set costs.gpu, or "
    "costs.gpu_memory_gib"
)


def test_the_parts_add_up_to_what_a_worker_takes(make_run: MakeRun) -> None:
    run = make_run(train=GPUS)
    plan, _ = make_plan(run)
    quantities = {
        name: one
        for name, one in plan.quantities.items()
        if name.startswith("train.memory_") and one.expected
    }
    assert len(quantities) == 6
    total = plan.quantities["train.memory"]
    assert total.expected == pytest.approx(sum(one.expected for one in quantities.values()))
    size = model_size("google/gemma-2-9b-it")
    assert size is not None
    assert total.expected == pytest.approx(training_memory(size, run.config.train, 8).total / GIB)
    assert (total.unit, total.basis) == ("GiB a GPU", "the sum; 8 worker(s)")
    assert quantities["train.memory_optimizer"].basis == "ZeRO-3: 12 bytes × 9.24 billion trained / workers"
    assert quantities["train.memory_activations"].basis == "a pass of 4,096 tokens, layers computed again"
    assert UNKNOWN_GPU in plan.notes


def test_a_gpu_that_is_too_small_is_a_warning(make_run: MakeRun) -> None:
    plan, _ = make_plan(make_run(train=GPUS, costs={"gpu": "L4"}))
    [warning] = plan.warnings
    assert "but one L4 has 22.5 GiB" in warning and "set train.zero.offload_optimizer=cpu" in warning
    assert plan.quantities["train.memory"].basis == "the sum; one L4 has 22.5"
    plan, _ = make_plan(make_run(train=GPUS, costs={"gpu": "L4", "gpu_memory_gib": 48}))
    assert plan.warnings == [] and UNKNOWN_GPU not in plan.notes


def test_what_is_offloaded_is_said(make_run: MakeRun) -> None:
    plan, _ = make_plan(make_run(train=GPUS | {"zero": {"offload_optimizer": "cpu"}}))
    assert plan.quantities["train.memory_optimizer"].basis == "offloaded"
    assert plan.quantities["train.memory_optimizer"].expected == 0
    assert plan.quantities["train.memory_host"].expected == pytest.approx(29.0, abs=0.1)


def test_without_gpus_the_need_is_said_and_compared_with_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    plan, _ = make_plan(make_run(train={"base_model": str(tmp_path / "model")}, costs={"gpu": "L4"}))
    assert plan.quantities["train.memory"].unit == "GiB a worker"
    assert plan.warnings == []


def test_an_unknown_model_is_said(make_run: MakeRun) -> None:
    plan, _ = make_plan(make_run(train={"base_model": "some/hub-model"}))
    assert "train.memory" not in plan.quantities
    assert (
        "memory of the training unknown: some/hub-model has no config.json on this machine that says its size"
        in plan.notes
    )
