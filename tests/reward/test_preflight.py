from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from music_ray.config import RayConfig, TrainConfig
from music_ray.errors import ConfigError, EnvironmentLacksError, InputError
from music_ray.memory.gpus import GIB, Gpu
from music_ray.reward import preflight
from music_ray.reward.data import PairTokens, TokenFile
from music_ray.reward.tokenise import TOKENS_SCHEMA
from music_ray.rundir import RunDir


def test_more_workers_than_cpus_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        preflight.check_cluster(TrainConfig(num_workers=6), {"CPU": 2.0}, {"CPU": 2.0})
    assert str(caught.value) == (
        "train.num_workers (6) x train.cpus_per_worker (1) exceeds the cluster's 2 CPUs: "
        "lower train.num_workers or add nodes"
    )


def test_more_workers_than_gpus_is_refused() -> None:
    train, cluster = TrainConfig(num_workers=4, use_gpu=True), {"CPU": 64.0}
    with pytest.raises(ConfigError, match=r"\(4\) with a GPU each exceeds the cluster's 0 GPUs"):
        preflight.check_cluster(train, cluster, cluster)


def test_a_cluster_that_can_grow_is_waited_for() -> None:
    waiting = preflight.check_cluster(TrainConfig(num_workers=6), {"CPU": 2.0}, {"CPU": 8.0})
    assert waiting == "train: 6 CPUs wanted, the cluster has 2 now: waiting for it to grow"
    assert preflight.check_cluster(TrainConfig(num_workers=2), {"CPU": 2.0}, {"CPU": 2.0}) is None


def test_what_labels_narrow_is_said() -> None:
    train = TrainConfig(num_workers=6, node_labels={"music-ray/group": "training"})
    assert preflight.check_cluster(train, {}, {"CPU": 8.0}) == (
        "train: 6 CPUs wanted, the cluster has 0 now on nodes with music-ray/group=training: waiting for it "
        "to grow"
    )
    with pytest.raises(
        ConfigError, match=r"the cluster's 2 CPUs on nodes with music-ray/group=training: lower"
    ):
        preflight.check_cluster(train, {"CPU": 2.0}, {"CPU": 2.0})


def test_a_step_that_would_hold_a_pair_twice_is_refused() -> None:
    tokens = TokenFile("tokens", "key", 7, 100, {})
    with pytest.raises(InputError) as caught:
        preflight.check_pairs(TrainConfig(pairs_per_step=8), tokens)
    assert str(caught.value) == (
        "train.pairs_per_step (8) exceeds the 7 pairs that can be trained on: "
        "lower it, or generate more pairs"
    )
    preflight.check_pairs(TrainConfig(pairs_per_step=7), tokens)


def test_parameters_are_counted_from_the_files_headers(gemma2_folder: Path) -> None:
    from music_ray.reward_model import load_reward_model

    for layers in (1, 3):
        model = load_reward_model(str(gemma2_folder), num_layers=layers)
        expected = sum(one.numel() for one in model.model.parameters())
        assert preflight.num_parameters(gemma2_folder, layers) == expected


def pairs_of(*longest: int) -> Any:
    """Pairs whose longer side has so many tokens."""
    rows = [
        {"id": str(number), "source": "s", "origin": "D", "chosen": [3] * length, "rejected": [4]}
        for number, length in enumerate(longest)
    ]
    return PairTokens(pa.Table.from_pylist(rows, schema=TOKENS_SCHEMA))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Little:
        available = 2**30

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_too_little_memory_is_refused(make_run: Any, gemma2_folder: Path, little_memory: None) -> None:
    run = make_run(gemma2_folder)
    with pytest.raises(EnvironmentLacksError) as caught:
        preflight.check_memory(run, str(gemma2_folder), pairs_of(30, 40))
    assert str(caught.value) == (
        f"training {gemma2_folder} on CPUs takes about 2.5 GiB of memory over 2 worker(s) (each: parameters "
        "0.0, gradients 0.0, optimizer 0.0, activations 0.0, gathered weights and buffers 0.0, libraries "
        "1.2), 1.0 GiB are available: use GPUs, a smaller model or fewer layers (train.num_layers)"
    )


def test_the_nodes_of_a_cluster_are_not_this_machine(
    make_run: Any, gemma2_folder: Path, little_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, address = make_run(gemma2_folder), "10.0.0.1:6379"
    there = RunDir(here.config.model_copy(update={"ray": RayConfig(address=address)}))

    def refused(run: RunDir) -> bool:
        try:
            preflight.check_memory(run, str(gemma2_folder), pairs_of(30))
        except EnvironmentLacksError:
            return True
        return False

    assert (refused(here), refused(there)) == (True, False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert (refused(here), refused(there)) == (False, False)


PAPER = TrainConfig(
    num_workers=8, use_gpu=True, precision="bfloat16", micro_tokens=16_384, pairs_per_step=64
)  # fmt: skip
GEMMA = "google/gemma-2-9b-it"


def test_a_gpu_that_is_too_small_is_refused_by_the_lengths_that_pairs_really_have() -> None:
    with pytest.raises(EnvironmentLacksError, match=r"but one A100-80 has 80\.0 GiB, 76\.0 GiB to plan with"):
        preflight.check_gpu(PAPER, GEMMA, pairs_of(*[2048] * 100), Gpu("A100-80", 80 * GIB))
    preflight.check_gpu(PAPER, GEMMA, pairs_of(*[200] * 100), Gpu("A100-80", 80 * GIB))
    preflight.check_gpu(PAPER, GEMMA, pairs_of(*[2048] * 100), None)
    preflight.check_gpu(PAPER, "some/model", pairs_of(*[2048] * 100), Gpu("T4", GIB))


def test_lengths_of_pairs_bound_the_passes() -> None:
    # The four longest of five pairs, both sides, over two workers, and the longest once more.
    train = TrainConfig(num_workers=2, pairs_per_step=4)
    narrowed = preflight.as_long_as(train, pairs_of(10, 20, 30, 40, 50))
    assert (narrowed.max_tokens, narrowed.micro_tokens) == (50, (20 + 30 + 40 + 50) + 2 * 50)
    assert (
        preflight.as_long_as(train.model_copy(update={"micro_tokens": 64}), pairs_of(50)).micro_tokens == 64
    )


def test_too_small_a_disk_is_refused(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    with pytest.raises(EnvironmentLacksError) as caught:
        preflight.check_disk(make_run(gemma2_folder), str(gemma2_folder))
    assert str(caught.value).endswith("has 0.0 GiB free: free some, or lower train.keep_checkpoints")


@pytest.mark.parametrize("use_gpu", [True, False])
def test_the_plan_counts_with_what_deepspeed_is_told(use_gpu: bool) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    from music_ray.memory import training
    from music_ray.reward.zero3 import deepspeed_config

    train = TrainConfig(use_gpu=use_gpu)
    set_here = deepspeed_config(train)["zero_optimization"]
    zero = DeepSpeedZeroConfig(**set_here)
    assert zero.reduce_bucket_size == training.reduce_bucket(train)
    assert zero.prefetch_bucket_size == training.PREFETCH_BUCKET
    assert zero.max_reuse_distance == training.REUSE_DISTANCE
