"""What `music-ray status` prints: the jobs as a table, and the stages of a run from its manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from music_ray.config import RunConfig
from music_ray.errors import MusicRayError
from music_ray.progress import duration
from music_ray.rundir import STAGES, RunDir
from music_ray.submit.job import Job
from music_ray.visible import on_one_line

_HEAD = ("run", "job", "state", "since", "exit code")


def job_table(jobs: Sequence[Job], now: float | None = None) -> list[str]:
    """One line a job: run, id, state, since when (in this machine's time zone), the driver's exit code."""
    rows = [_HEAD, *(_row(job, time.time() if now is None else now) for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(job: Job, now: float) -> tuple[str, ...]:
    since = job.started if job.is_active else job.ended or job.started
    moment = "?"
    if since is not None:
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(since))
        moment += f" ({duration(max(0.0, now - since))})"
    exit_code = "–" if job.exit_code is None else str(job.exit_code)
    # Whoever may submit jobs may call them, and their runs, anything.
    return (on_one_line(job.run or "?"), on_one_line(job.id), job.state, moment, exit_code)


def stage_lines(config: RunConfig) -> list[str]:
    """One line a stage: what the manifest says of it, with its counts; why not, where it can't be read.

    Args:
        config: of which name and runs_dir count.
    """
    try:
        run = RunDir(config)
        manifest = run.manifest()
    except (MusicRayError, OSError) as error:
        return [f"the folder can't be read from here: {' '.join(str(error).split())}"]
    if not manifest["stages"]:
        return ["nothing lies there yet" + (", or this machine does not see it" if run.is_local else "")]
    return [f"{stage:9} {_stage(manifest['stages'].get(stage, {}))}" for stage in STAGES]


def _stage(record: dict[str, Any]) -> str:
    status = record.get("status")
    if status == "running":
        starts = record.get("starts", 1)
        return f"running since {record.get('started', '?')}{f', start {starts}' if starts > 1 else ''}"
    if status != "done":
        return "–"
    counts = {name: value for name, value in record.get("counts", {}).items() if isinstance(value, int)}
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
    return f"done {record.get('finished', '?')}{f' ({told})' if told else ''}"
