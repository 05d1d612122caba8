"""`music-ray stop`: has Ray end the job of a run, and waits for its end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from music_ray.errors import InputError, StageError
from music_ray.progress import duration, say
from music_ray.submit.address import cluster_address
from music_ray.submit.cluster import Cluster
from music_ray.submit.find import find
from music_ray.submit.request import held_seconds

STOP_SECONDS = 60.0
"""How long a job's end is waited for. Ray kills after RAY_JOB_STOP_WAIT_TIME_S: 45 seconds on the clusters of
cluster/, which is less than this, and 3 where nobody has set it."""
_LOOK_SECONDS = 1.0


def stop_command(what: str, overrides: Sequence[str], address: str | None) -> None:
    """Stops what runs of a run or a job.

    Raises:
        InputError: no such job is running.
        StageError: it has not ended after STOP_SECONDS.
        MusicRayError: another mistake, or a cluster that does not answer.
    """
    cluster = Cluster(cluster_address(address))
    found = find(what, overrides, cluster)
    active = [job for job in found.jobs if job.is_active]
    if not active:
        last = f"; {found.jobs[0].id} is {found.jobs[0].state}" if found.jobs else ""
        again = ""
        if found.jobs and found.jobs[0].is_lost:
            again = ". A `submit --resubmit` that follows it will submit again: end that by Ctrl-C"
        raise InputError(
            f"no job of {what} is running on {cluster.name}{last}: look with `music-ray status`{again}"
        )
    for job in active:
        cluster.stop(job.id)
        say(f"{job.id}: asked to stop")
        say(f"{job.id}: {_wait_for_end(cluster, job.id)}. What was finished is kept; the same submit goes on")
    if found.run is not None and (held := held_seconds(found.run)):
        say(f"if its driver had to be killed, the run is held for up to {duration(held)} more")


def _wait_for_end(cluster: Cluster, job_id: str) -> str:
    """The state in which the job has ended."""
    until = time.monotonic() + STOP_SECONDS
    while (job := cluster.job(job_id)) is not None and job.is_active:
        if time.monotonic() > until:
            if job.state == "PENDING":
                raise StageError(
                    f"{job_id} was asked to stop, but Ray can't do that before it has found a place for the "
                    "driver (--driver-cpus): it ends once there is one, or after Ray's 15 minutes without"
                )
            raise StageError(
                f"{job_id} was asked to stop, and still runs after {duration(STOP_SECONDS)}: look with "
                f"`music-ray status {shlex.quote(job_id)}`, and stop it again"
            )
        time.sleep(_LOOK_SECONDS)
    return job.state if job else "gone"
