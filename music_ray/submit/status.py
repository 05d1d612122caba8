"""`music-ray status`: our jobs of a cluster, or one run's jobs and stages."""

from __future__ import annotations

from collections.abc import Sequence

from music_ray.progress import say
from music_ray.submit.address import cluster_address
from music_ray.submit.cluster import Cluster
from music_ray.submit.find import find, our_jobs
from music_ray.submit.request import run_location
from music_ray.submit.show import job_table, stage_lines


def status_command(what: str | None, overrides: Sequence[str], address: str | None) -> None:
    """Prints the jobs; of one run or job also the run's stages.

    Args:
        what: a configuration file or a job's id; all of our jobs when empty.
        overrides: those that the run was submitted with.

    Raises:
        MusicRayError: a mistake, or a cluster that does not answer.
    """
    cluster = Cluster(cluster_address(address))
    if what is None:
        jobs = our_jobs(cluster)
        _print(job_table(jobs) if jobs else [f"no job of music_ray on {cluster.name}"])
        return
    found = find(what, overrides, cluster)
    _print(job_table(found.jobs) if found.jobs else [f"no job of this run on {cluster.name}"])
    if found.jobs and found.jobs[0].state == "FAILED":
        say(found.jobs[0].end)
    if found.run is not None:
        say(f"stages of {run_location(found.run)}:")
        _print([f"  {line}" for line in stage_lines(found.run)])


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)
