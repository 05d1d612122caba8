"""Looks after a job until it has ended: shows its log, waits for a lost cluster, submits a lost job again."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass

from music_ray.errors import EXIT_INTERRUPTED, EXIT_STAGE
from music_ray.progress import duration, say
from music_ray.submit.cluster import Cluster, UnreachableError
from music_ray.submit.environment import hidden
from music_ray.submit.job import Job, JobEndedError, jobs_of_run, next_number
from music_ray.submit.log import LogReader
from music_ray.submit.request import Request
from music_ray.visible import visible_log

_REST_SECONDS = 15.0
"""For the rest of an ended job's log; the server looks into the file every second or two."""
_TICK_SECONDS = 0.2
_WAITING_SECONDS = 20.0
"""After so long it is said that a job waits: for the driver's CPUs, or for its files."""
_SILENT_SECONDS = 300.0
"""A log that says nothing for so long is asked for anew: a load balancer may have dropped the connection."""


@dataclass(frozen=True)
class Patience:
    """How often is looked, and how long is waited, in seconds."""

    look: float = 3.0
    """Between two looks at the job's state."""
    cluster: float = 1800.0
    """For a cluster that does not answer."""
    first_pause: float = 5.0
    """Before a lost job is submitted again; each further pause is twice as long."""
    longest_pause: float = 300.0
    at_least: float = 0.0
    """The shortest pause: on an object store a dead driver holds its run for so long."""

    def pause(self, before: int) -> float:
        """Seconds to wait before a job is submitted again for the n-th time, from 0."""
        return max(self.at_least, min(self.longest_pause, self.first_pause * 2.0 ** min(before, 32)))


class Follower:
    """Follows one request's job, and those that are submitted in its place."""

    def __init__(
        self, cluster: Cluster, request: Request, archive: str, resubmit: int, patience: Patience
    ) -> None:
        self.cluster, self.request, self.archive = cluster, request, archive
        self.resubmit, self.patience = resubmit, patience
        self._line = ""

    def see_through(self, job_id: str) -> None:
        """Returns when the run's job has succeeded.

        Raises:
            JobEndedError: it has not, or Ctrl-C: the job goes on, and is followed no longer.
            UnreachableError: the cluster has not answered for patience.cluster seconds.
        """
        for number in range(self.resubmit + 1):
            job = self._follow_or_leave(job_id)
            end, code = self._end(job_id, job)
            if number == self.resubmit or not (job is None or job.is_lost):
                break
            pause = self.patience.pause(number)
            say(f"{end}. Submitting again in {duration(pause)} ({number + 1} of {self.resubmit})")
            time.sleep(pause)
            job_id = self._submit_again()
        if code:
            raise JobEndedError(end, code)
        say(end)

    def follow(self, job_id: str) -> Job | None:
        """Shows the log of a job until it has ended.

        Returns:
            the ended job; None when the cluster answers and does not know it any more: its head was lost.

        Raises:
            UnreachableError: the cluster has not answered for patience.cluster seconds.
        """
        log: LogReader | None = None
        waiting_told = time.monotonic() + _WAITING_SECONDS
        while True:
            try:
                job = self.cluster.job(job_id)
            except UnreachableError as error:
                self._wait_for_cluster(error)
                log = log.again() if log else None
                continue
            if job is None:
                self._print(self._line)
                self._line = ""
                return None
            if job.state == "PENDING" and time.monotonic() > waiting_told:
                waiting_told = float("inf")
                say(f"{job_id} waits to be started: {job.first_line}")
            log = log or LogReader(lambda: self.cluster.tail(job_id))
            if log.is_broken or (job.is_active and log.seconds_silent > _SILENT_SECONDS):
                log = log.again()
            self._show(
                log, self.patience.look if job.is_active else _REST_SECONDS, to_its_end=not job.is_active
            )
            if not job.is_active:
                return job

    def _follow_or_leave(self, job_id: str) -> Job | None:
        try:
            return self.follow(job_id)
        except KeyboardInterrupt:
            raise JobEndedError(self.left(job_id), EXIT_INTERRUPTED) from None

    def left(self, job_id: str) -> str:
        """What to do with a job that is followed no longer."""
        again = ", and is not submitted again if it is lost" if self.resubmit else ""
        where = shlex.join(["--address", self.cluster.name, job_id])
        return (
            f"{job_id} goes on by itself{again}\n"
            f"follow it: ray job logs --follow {where}\n"
            f"its state: music-ray status {where}\n"
            f"stop it:   music-ray stop {where}"
        )

    def _end(self, job_id: str, job: Job | None) -> tuple[str, int]:
        if job is not None:
            return hidden(job.end, self.request.environment), job.result
        return f"job {job_id} was lost: the cluster has a new head, which does not know it", EXIT_STAGE

    def _show(self, log: LogReader, seconds: float, *, to_its_end: bool = False) -> None:
        """Prints the lines that come within so many seconds, or all that is left of the log."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (to_its_end and log.is_over):
            self._line += log.take(min(left, _TICK_SECONDS))
            whole, newline, self._line = self._line.rpartition("\n")
            self._print(whole + newline)
        if to_its_end:
            self._print(self._line)
            self._line = ""

    def _print(self, text: str) -> None:
        """Shows whole lines, so that a variable's value is found that comes in two pieces."""
        if text:
            sys.stdout.write(visible_log(hidden(text, self.request.environment)))
            sys.stdout.flush()

    def _wait_for_cluster(self, error: UnreachableError) -> None:
        """Returns when the cluster answers again."""
        say(f"{error}. Waiting for up to {duration(self.patience.cluster)}")
        until = time.monotonic() + self.patience.cluster
        while True:
            time.sleep(self.patience.look)
            try:
                self.cluster.jobs()
            except UnreachableError:
                if time.monotonic() > until:
                    raise
            else:
                say(f"{self.cluster.name} answers again")
                return

    def _submit_again(self) -> str:
        """A new job for the run, unless it has one by now: what was not answered may have been done."""
        while True:
            try:
                jobs = self.cluster.jobs()
                active = next((job for job in jobs_of_run(jobs, self.request.run) if job.is_active), None)
                if active is not None:
                    say(f"{active.id} does this run by now")
                    return active.id
                number = next_number(jobs, self.request.name)
                job_id = self.cluster.submit(self.request, self.archive, number)
            except UnreachableError as error:
                self._wait_for_cluster(error)
            else:
                say(f"submitted: {job_id}")
                return job_id
