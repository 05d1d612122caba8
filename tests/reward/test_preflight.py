from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from music_ray.config import TrainConfig
from music_ray.errors import ConfigError, EnvironmentLacksError, InputError
from music_ray.reward import preflight
from music_ray.reward.data import TokenFile


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


def test_too_little_memory_is_refused(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Little:
        available = 2**30

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    with pytest.raises(EnvironmentLacksError, match=r"about 2\.4 GiB of memory over all workers, 1\.0 GiB"):
        preflight.check_space(make_run(gemma2_folder), str(gemma2_folder))
