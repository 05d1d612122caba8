"""GPUs by the names of the configuration and by Ray's labels."""

from __future__ import annotations

from typing import get_args

import pytest

from music_ray.config import CostsConfig
from music_ray.memory.gpus import _OF_RAY, GIB, MIB, Gpu, configured_gpu, labelled_gpu


def test_the_configuration_names_exactly_the_gpus_of_the_table() -> None:
    annotation = CostsConfig.model_fields["gpu"].annotation
    names = {name for part in get_args(annotation) for name in get_args(part)}
    assert names == set(MIB)
    assert set(_OF_RAY.values()) == set(MIB) - {"V100-16"}


def test_the_configured_gpu() -> None:
    assert configured_gpu(CostsConfig()) is None
    assert configured_gpu(CostsConfig(gpu="L4")) == Gpu("L4", 23_034 * 2**20)
    assert configured_gpu(CostsConfig(gpu="H100-80", gpu_memory_gib=40)) == Gpu("H100-80", 40 * GIB)
    assert configured_gpu(CostsConfig(gpu_memory_gib=40)) == Gpu("GPU", 40 * GIB)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (["L4"], "L4"),
        (["A100"], "A100-80"),  # 40 or 80: what may fit is not refused
        (["A100", "A100-40G"], "A100-40"),
        (["H100", "L4"], "L4"),
        (["H100", "Gaudi9"], None),
        ([], None),
    ],
)
def test_the_smallest_gpu_of_a_cluster_counts(labels: list[str], name: str | None) -> None:
    resources = {"CPU": 8.0, "GPU": 2.0} | {f"accelerator_type:{one}": 1.0 for one in labels}
    found = labelled_gpu(resources)
    assert (found.name if found else None) == name
