"""Which jobs a user means: by a job's id, or by the configuration of their run."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from music_ray.config import RunConfig
from music_ray.config.load import load_config, resolve_config
from music_ray.errors import ConfigError, InputError
from music_ray.submit.cluster import Cluster
from music_ray.submit.job import Job, jobs_of_run, newest_first
from music_ray.submit.request import run_location

_YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Found:
    """The jobs that are meant, the newest first."""

    jobs: list[Job]
    run: RunConfig | None
    """Name and runs_dir of their run; None where no job says which run it does."""


def our_jobs(cluster: Cluster) -> list[Job]:
    """All jobs of music_ray that the cluster remembers, the newest first.

    Raises:
        EnvironmentLacksError: the cluster does not answer, or asks for a token.
    """
    return [job for job in newest_first(cluster.jobs()) if job.is_ours]


def find(what: str, overrides: Sequence[str], cluster: Cluster) -> Found:
    """The jobs of a configuration file, or the one job with an id.

    Args:
        overrides: those that the run was submitted with. Without its runs_dir it is found by its name.

    Raises:
        ConfigError: the configuration can't be read.
        InputError: no job of this id, or a name that several runs have.
        EnvironmentLacksError: the cluster does not answer, or asks for a token.
    """
    if not what.endswith(_YAML):
        jobs = our_jobs(cluster)
        job = next((job for job in jobs if job.id == what), None)
        if job is None:
            raise InputError(
                f"no job of music_ray called {what} on {cluster.name}: `music-ray status` lists them; a "
                "configuration's name ends in .yaml"
            )
        return Found([job], _run_of(job))
    config = load_config(what, overrides)
    jobs = our_jobs(cluster)
    if "://" in config.runs_dir or os.path.isabs(config.runs_dir):
        return Found(jobs_of_run(jobs, run_location(config)), config)
    # No job could have this runs_dir: the run was submitted with another, which was not given again.
    jobs = [job for job in jobs if job.run and job.run.rpartition("/")[2] == config.name]
    places = sorted({job.run for job in jobs if job.run})
    if len(places) > 1:
        raise InputError(
            f"several runs are called {config.name} ({', '.join(places)}): name the job, or give the "
            "runs_dir=… that it was submitted with"
        )
    return Found(jobs, _run_of(jobs[0]) if jobs else None)


def _run_of(job: Job) -> RunConfig | None:
    if job.run is None:
        return None
    place, slash, name = job.run.rpartition("/")
    run = resolve_config({"name": name, "runs_dir": place or slash})
    # job.run is without the options of a URI, such as the endpoint of a store that is not Amazon's.
    with contextlib.suppress(ValueError, ConfigError):  # anybody's command, with quotes or values of its own
        given = [word for word in shlex.split(job.command) if word.startswith("runs_dir=")]
        full = resolve_config({"name": name, "runs_dir": given[-1].partition("=")[2]}) if given else run
        if run_location(full) == job.run:
            return full
    return run
