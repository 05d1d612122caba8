"""What is asked of the cluster: a command, variables, a driver's CPUs. Knows nothing of how it is sent."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from music_ray.config import RunConfig
from music_ray.provenance import COMMIT_KEY, git_commit
from music_ray.public import without_credentials
from music_ray.run_lock import LEASE_SECONDS
from music_ray.submit.job import RUN_KEY

_CLOCKS_SECONDS = 5.0
"""By how much machines' clocks may differ."""


@dataclass(frozen=True)
class Request:
    """A job that is to be made, as often as it takes."""

    name: str
    """The run's name; the job's id tells it."""
    run: str
    """The run's folder: by it the job is found again."""
    words: tuple[str, ...]
    """The command, a word each."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """Variables of the job's processes with their values."""
    driver_cpus: float = 0.0
    """CPUs that Ray reserves for the driver; with 0 it runs on the head."""
    metadata: dict[str, str] = field(default_factory=dict)
    """What the cluster remembers beside the job; anybody who may reach the cluster can read it."""

    @property
    def command(self) -> str:
        """The command as a shell reads it."""
        return shlex.join(self.words)

    def job_id(self, number: int) -> str:
        """The submission id of the job's N-th try."""
        return f"music-ray-{self.name}-{number}"


def make_request(
    config: RunConfig,
    stage: str,
    config_file: str,
    overrides: Sequence[str],
    environment: dict[str, str],
    driver_cpus: float,
) -> Request:
    """The job of one run.

    Args:
        stage: `run`, or the one stage that it is to do.
        config_file: the configuration's path inside the working directory.
        overrides: as they were given; the job resolves the configuration anew.
    """
    run = run_location(config)
    metadata = {RUN_KEY: run}
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    # git_commit() is of the package that runs here. A job runs the one of its working directory.
    if os.path.realpath("music_ray") == ours and (commit := git_commit()):
        metadata[COMMIT_KEY] = commit
    words = ("python", "-m", "music_ray", stage, config_file, *overrides)
    return Request(config.name, run, words, environment, driver_cpus, metadata)


def run_location(config: RunConfig) -> str:
    """A run's folder as jobs are known by it: neither credentials nor options of a URI; nothing is opened."""
    place = config.runs_dir
    if "://" not in place:
        return os.path.join(os.path.abspath(place), config.name)
    return f"{without_credentials(place).rstrip('/')}/{config.name}"


def held_seconds(config: RunConfig) -> float:
    """How long a driver that was killed still holds its run: on an object store until its lease is over."""
    on_a_store = "://" in config.runs_dir and not config.runs_dir.startswith("file://")
    return LEASE_SECONDS + _CLOCKS_SECONDS if on_a_store else 0.0
