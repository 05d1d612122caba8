"""How many threads an engine computes with on the CPU.

Ray leaves an actor as many threads as it asked for CPUs (it sets OMP_NUM_THREADS), so on a machine that
one engine has to itself the other cores would idle; torch's own default, all cores, would have several
engines of one machine in each other's way.
"""

from __future__ import annotations

import os

from music_ray.config import EngineConfig


def engine_threads(config: EngineConfig) -> int | None:
    """Threads of one engine: its share of this machine's cores, but no fewer than the CPUs it asks Ray for.

    None on GPUs, where nothing is changed.
    """
    if config.gpus_per_engine:
        return None
    share = len(os.sched_getaffinity(0)) // config.max_engines
    return max(1, share, int(config.cpus_per_engine))


def compute_with(threads: int | None) -> None:
    """Sets torch's threads in this process.

    Call it before vLLM starts (its CPU worker turns torch.set_num_threads off), in the thread that
    computes (OpenMP keeps a number for each).
    """
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
