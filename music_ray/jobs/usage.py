"""What a job has used over all its starts: engine time and tokens, kept while it works.

Each start has a small file of its own that is written anew every few seconds, so that what a driver
used that was killed is counted as well, up to its last seconds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pyarrow.fs as pafs

from music_ray.config import EngineConfig
from music_ray.rundir import RunDir

FOLDER = "usage"


def write_usage(
    run: RunDir, name: str, run_epoch: int, totals: dict[str, Any], engine: EngineConfig | None = None
) -> None:
    """Records the numbers of Board.totals for this start.

    Args:
        engine: what the job's actors asked Ray for; the run's engine when None.
    """
    engine = engine or run.config.engine
    seconds = totals["engine_seconds"]
    numbers = {key: value for key, value in totals.items() if isinstance(value, int | float)}
    for transient in ("actors", "alive", "obeyed", "in_flight"):
        numbers.pop(transient, None)
    numbers |= {
        "gpu_seconds": seconds * engine.gpus_per_engine,
        "cpu_seconds": seconds * engine.cpus_per_engine,
    }
    run.write_text(json.dumps(numbers, indent=1), FOLDER, f"{name}-e{run_epoch:04d}.json")


def read_usage(run: RunDir, name: str | None = None) -> Counter[str]:
    """Sums over all starts of a job, or of all jobs of the run.

    Returns:
        gpu_seconds, cpu_seconds, engine_seconds, and counters of calls, rows and tokens; tokens also by
        role, as 'user.prompt'.
    """
    used: Counter[str] = Counter()
    selector = pafs.FileSelector(run.path(FOLDER), allow_not_found=True)
    for info in run.fs.get_file_info(selector):
        found = re.fullmatch(r"(.+)-e\d+\.json", info.base_name)
        if found and name in (None, found[1]):
            used.update(json.loads(run.read_text(FOLDER, info.base_name)))
    return used
