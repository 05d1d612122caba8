"""What vLLM's processes are given to start with: environment variables, and a lifeline to this one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from music_ray.engines.lifeline import Lifeline, environment


@contextlib.contextmanager
def starting_vllm(arguments: dict[str, Any], *, core_in_this_process: bool) -> Iterator[Lifeline | None]:
    """The environment in which vLLM is started, and the lifeline of its processes where there are any.

    Raises:
        Whatever starting raises; the lifeline then ends the processes that have begun.
    """
    split = arguments["tensor_parallel_size"]
    values = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if core_in_this_process else "1",
        "VLLM_NO_USAGE_STATS": os.environ.get("VLLM_NO_USAGE_STATS", "1"),
        # A forked child would have this process's threads' locks, and not the lifeline's mark.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Bound, vLLM's CPU workers leave half of two cores idle, and want a memory node each.
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    }
    if split > 1 and "OMP_NUM_THREADS" not in os.environ:
        values["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // split))
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
