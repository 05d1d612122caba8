"""One job of the cluster, as far as music_ray looks at it, and what its end means.

Environment variables are not among what is kept, so no message and no table can show their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from music_ray.errors import EXIT_AGAIN, EXIT_INTERRUPTED, EXIT_OK, EXIT_STAGE, MusicRayError

RUN_KEY = "music_ray_run"
"""Key of a job's metadata: the folder of its run."""
_COMMAND = re.compile(r"-m music_ray \w|\bmusic-ray (run|seeds|generate|pairs|mix|train|evaluate) ")

NEVER_STARTED = {
    "RUNTIME_ENV_SETUP_FAILURE",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR",
}
"""Ray's reasons for a job without an exit code that would fail again: nothing was lost, nothing had begun."""
_SIGNALS = 128
"""A shell says 128 + the signal for a command that a signal has ended."""


class JobEndedError(MusicRayError):
    """The job that was followed did not succeed, or is followed no longer; the exit code says which."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """A job, at one moment."""

    id: str
    """Its submission id."""
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    command: str
    run: str | None = None
    """The folder of its run; None where it was not submitted by music_ray."""
    started: float | None = None
    """Seconds since 1970."""
    ended: float | None = None
    exit_code: int | None = None
    """The driver's; None while it runs, and where nobody was there to see its end."""
    error_type: str | None = None
    """Ray's word for why it failed."""
    message: str = ""
    """Ray's sentence about its state; of a failed driver with the end of its log."""

    @property
    def is_ours(self) -> bool:
        """Whether it is music_ray's, submitted by it or by `ray job submit`."""
        return self.run is not None or bool(_COMMAND.search(self.command))

    @property
    def is_active(self) -> bool:
        """Whether it runs or waits to run."""
        return self.state in ("PENDING", "RUNNING")

    @property
    def is_lost(self) -> bool:
        """Whether its driver or its node went away under it, or it says itself that what ended it passes, so
        that the same submit may well succeed.

        A driver that a signal has ended was killed: by the kernel for memory, or by Ray with its node. A
        driver's own exit codes (1 a bug, 2 a user's mistake, 3 a stage's end, 130 interrupted) would come
        again; 75 is for what passes.
        """
        if self.state != "FAILED":
            return False
        if self.exit_code is None:
            return self.error_type not in NEVER_STARTED
        return self.exit_code == EXIT_AGAIN or self._signal is not None

    @property
    def _signal(self) -> int | None:
        """The signal that has ended its driver."""
        code = self.exit_code
        if code is None or code == EXIT_INTERRUPTED or 0 <= code <= _SIGNALS:
            return None
        return -code if code < 0 else code - _SIGNALS

    @property
    def result(self) -> int:
        """What `music-ray submit` exits with: the driver's own code where it has said one."""
        if self.state == "SUCCEEDED":
            return EXIT_OK
        if self.state == "STOPPED":
            return EXIT_INTERRUPTED
        return EXIT_STAGE if self.exit_code is None or self._signal is not None else self.exit_code

    @property
    def end(self) -> str:
        """How it ended, in words."""
        if self.state == "SUCCEEDED":
            return f"job {self.id} has succeeded"
        if self.state == "STOPPED":
            return f"job {self.id} was stopped: the same submit goes on"
        if self.exit_code is None:
            what = "was lost" if self.is_lost else "could not be started"
            return f"job {self.id} {what} ({self.first_line}): the same submit goes on"
        if self._signal is not None:
            why = f"its driver was ended by signal {self._signal}"
            return f"job {self.id} was lost ({why}): the same submit goes on"
        if self.exit_code == EXIT_AGAIN:
            return (
                f"job {self.id} has ended with exit code {EXIT_AGAIN} for a cause that passes, which its log "
                "names: the same submit goes on"
            )
        return f"job {self.id} has failed with exit code {self.exit_code}: its log says why"

    @property
    def first_line(self) -> str:
        """The first line of Ray's message; what follows is the log again."""
        return self.message.strip().partition("\n")[0][:200] or self.error_type or self.state


def jobs_of_run(jobs: Iterable[Job], run: str) -> list[Job]:
    """The jobs of the run with this folder, the newest first."""
    return newest_first(job for job in jobs if job.run == run)


def newest_first(jobs: Iterable[Job]) -> list[Job]:
    """Jobs by their start."""
    return sorted(jobs, key=lambda job: (job.started or 0.0, job.id), reverse=True)


def next_number(jobs: Iterable[Job], name: str) -> int:
    """The N of the next submission id music-ray-NAME-N: one more than the cluster has seen."""
    pattern = re.compile(rf"music-ray-{re.escape(name)}-(\d+)")
    return 1 + max((int(found[1]) for job in jobs if (found := pattern.fullmatch(job.id))), default=0)
