"""Memory of GPUs by their names: those of the configuration and those that Ray labels nodes with.

A GPU that is not in the table has no known memory; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from music_ray.config import CostsConfig

GIB = 2**30

MIB: dict[str, int] = {
    "T4": 15_360,
    "V100-16": 16_384,
    "V100-32": 32_768,
    "L4": 23_034,
    "A10G": 23_028,
    "L40S": 46_068,
    "A100-40": 40_960,
    "A100-80": 81_920,
    "H100-80": 81_559,
    "H200": 143_771,
    "B200": 183_359,
}
"""Memory in MiB as nvidia-smi tells it: 2 to 4% less than the number in the name, with error
correction on. The names are those of `costs.gpu`."""

_OF_RAY = {
    "T4": "T4",
    "V100": "V100-32",
    "L4": "L4",
    "A10G": "A10G",
    "L40S": "L40S",
    "A100": "A100-80",
    "A100-40G": "A100-40",
    "A100-80G": "A100-80",
    "H100": "H100-80",
    "H200": "H200",
    "B200": "B200",
}
"""Ray's label for a node's accelerators → our name. A label that stands for two sizes counts as the
larger one: what may fit is not refused."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU."""

    name: str
    memory: float
    """In bytes."""


def configured_gpu(costs: CostsConfig) -> Gpu | None:
    """The training GPU as `costs` describes it; None where it does not."""
    if costs.gpu_memory_gib is not None:
        return Gpu(costs.gpu or "GPU", costs.gpu_memory_gib * GIB)
    return Gpu(costs.gpu, MIB[costs.gpu] * 2**20) if costs.gpu else None


def labelled_gpu(resources: Mapping[str, float] | Iterable[str]) -> Gpu | None:
    """The smallest GPU among a Ray cluster's resources (`accelerator_type:H100`, …).

    Returns:
        None where a kind is not in the table, or there is none: then it is not known what a worker gets.
    """
    labels = [one.partition(":")[2] for one in resources if one.startswith("accelerator_type:")]
    if not labels or any(one not in _OF_RAY for one in labels):
        return None
    name = min((_OF_RAY[one] for one in labels), key=MIB.__getitem__)
    return Gpu(name, MIB[name] * 2**20)
