"""`music-ray submit`: a run as a job, checked before anything is sent."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from music_ray.config import RunConfig
from music_ray.config.load import load_config
from music_ray.errors import ConfigError, InputError, RunFolderError
from music_ray.progress import say
from music_ray.rundir import RunDir
from music_ray.submit.address import cluster_address
from music_ray.submit.checks import check_files, check_place, path_inside
from music_ray.submit.cluster import Cluster
from music_ray.submit.environment import job_environment
from music_ray.submit.follow import Follower, Patience
from music_ray.submit.job import jobs_of_run, next_number
from music_ray.submit.package import Package, find_package, size_bound
from music_ray.submit.request import Request, held_seconds, make_request

_MIB = 2**20


@dataclass(frozen=True)
class Wishes:
    """The options of `submit`."""

    address: str | None = None
    """--address; the environment's when empty."""
    stage: str = "run"
    """What the job does: run, or one stage."""
    env: Sequence[str] = ()
    """Names of variables that the job gets with their values."""
    driver_cpus: float = 0.0
    """CPUs of the driver."""
    follow: bool = True
    """Whether the log is shown until the job ends."""
    resubmit: int = 0
    """How often a lost job is submitted again."""
    dry_run: bool = False
    """Whether only to say what would be done."""


def submit_command(config_file: str, overrides: Sequence[str], wishes: Wishes) -> None:
    """Checks everything that can be checked here, then submits the run as a job and follows it.

    Raises:
        MusicRayError: a mistake, a cluster that does not answer, or (JobEndedError) a job without success.
    """
    if wishes.resubmit and not wishes.follow:
        raise ConfigError(
            f"--resubmit {wishes.resubmit} needs somebody who looks after the job: leave --no-follow out"
        )
    folder = Path.cwd()
    config = load_config(config_file, overrides)
    check_place(config, overrides)
    inside = path_inside(folder, config_file)
    environment = job_environment(wishes.env)
    cluster = None if wishes.dry_run else Cluster(cluster_address(wishes.address))
    request = make_request(config, wishes.stage, inside, overrides, environment, wishes.driver_cpus)
    package = find_package(folder, _own_results(folder, config))
    check_files(config, inside, package)
    with tempfile.TemporaryDirectory(prefix="music-ray-submit-") as place:
        archive = Path(place) / "working_dir.zip"
        size = package.write(archive, size_bound())
        if cluster is None:
            _tell(request, package, size)
        else:
            _submit(cluster, config, request, str(archive), size, wishes)


def _submit(
    cluster: Cluster, config: RunConfig, request: Request, archive: str, size: int, wishes: Wishes
) -> None:
    jobs = cluster.jobs()
    running = next((job for job in jobs_of_run(jobs, request.run) if job.is_active), None)
    if running is not None:
        word = shlex.quote(running.id)  # whoever may submit jobs may call them anything
        raise InputError(
            f"{running.id} does {request.run} already ({running.state}): look with `music-ray status "
            f"{word}`, end it with `music-ray stop {word}`, or give this run another name"
        )
    for note in [*_notes(request), *_look_at_folder(config)]:
        say(f"note: {note}")
    job_id = cluster.submit(request, archive, next_number(jobs, request.name))
    say(f"submitted: {job_id} to {cluster.name}, with {size / _MIB:.1f} MiB of working directory")
    say(f"its run: {request.run}")
    patience = Patience(at_least=held_seconds(config))
    follower = Follower(cluster, request, archive, wishes.resubmit, patience)
    if wishes.follow:
        say("Ctrl-C ends the following, not the job")
        follower.see_through(job_id)
    else:
        say(follower.left(job_id))


def _look_at_folder(config: RunConfig) -> list[str]:
    """What the run folder holds fits the configuration, as far as this machine can see it.

    Returns:
        a note where it can't.

    Raises:
        RunFolderError: an identity key differs.
    """
    try:
        RunDir(config).check_identity()
    except RunFolderError:
        raise
    except (InputError, OSError) as error:
        return [f"the run folder can't be looked at from here ({' '.join(str(error).split())})"]
    return []


def _own_results(folder: Path, config: RunConfig) -> list[str]:
    """The folder of all runs, where it lies in the working directory by its full path."""
    runs = Path(config.runs_dir)
    inside = "://" not in config.runs_dir and runs.is_relative_to(folder) and runs != folder
    return [f"/{runs.relative_to(folder).as_posix()}"] if inside else []


def _notes(request: Request) -> list[str]:
    """What is worth knowing before the job begins."""
    notes = []
    if request.environment:
        notes.append(
            f"Ray keeps the value{'s' if len(request.environment) > 1 else ''} of "
            f"{', '.join(request.environment)} with the job, where whoever has the cluster's token can read "
            "them, and writes them to log files of its nodes; better, the nodes have them in their own "
            "environment"
        )
    if "://" not in request.run:
        notes.append(f"every node must see {request.run}")
    if request.driver_cpus:
        notes.append(
            f"the driver takes {request.driver_cpus:g} CPUs on whatever node has them; if that is a spot "
            "node, the run ends with it until it is submitted again"
        )
    if not Path("music_ray", "__main__.py").is_file():
        notes.append("there is no music_ray in this folder: the one that is installed on the nodes is used")
    return notes


def _tell(request: Request, package: Package, size: int) -> None:
    """What would be submitted, without the values of variables."""
    runtime_env = {
        "working_dir": f"<{size / _MIB:.1f} MiB>",
        "env_vars": dict.fromkeys(request.environment, "<value of this environment>"),
    }
    say(f"command:           {request.command}")
    say(f"working directory: {package.folder} ({len(package.files)} files, {size / _MIB:.1f} MiB packed)")
    say(f"not sent:          what .gitignore and .rayignore name, and {' '.join(package.excludes)}")
    say(f"runtime env:       {json.dumps(runtime_env)}")
    say(f"driver:            {f'{request.driver_cpus:g} CPUs' if request.driver_cpus else 'on the head'}")
    say(f"metadata:          {json.dumps(request.metadata)}")
    for note in _notes(request):
        say(f"note: {note}")
