"""What vLLM's processes are given to start with: environment variables, and a lifeline to this one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from music_ray.engines.lifeline import Lifeline, environment


@contextlib.contextmanager
def starting_vllm(
    split: int, *, core_in_this_process: bool, threads: int | None = None
) -> Iterator[Lifeline | None]:
    """The environment in which vLLM is started, and the lifeline of its processes where there are any.

    Args:
        split: workers that share the model (tensor_parallel_size).
        threads: that all of them compute with on the CPU; None leaves it to vLLM.

    Raises:
        Whatever starting raises; the lifeline then ends the processes that have begun.
    """
    values = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if core_in_this_process else "1",
        "VLLM_NO_USAGE_STATS": os.environ.get("VLLM_NO_USAGE_STATS", "1"),
        # A forked child would have this process's threads' locks, and not the lifeline's mark.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Bound, vLLM's CPU workers leave half of two cores idle, and want a memory node each.
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    }
    if threads is not None:
        # Whatever stands there in a Ray actor is Ray's: the CPUs that the actor asked for.
        values["OMP_NUM_THREADS"] = str(max(1, threads // split))
    with environment(values):
        if core_in_this_process and split == 1:
            yield None
            return
        lifeline = Lifeline()
        try:
            with lifeline.marking():
                yield lifeline
        except BaseException:
            lifeline.close()
            raise
