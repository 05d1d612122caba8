"""The job server of one Ray cluster, through Ray's own client.

Here alone Ray's errors become ours: who is not let in, what does not answer, what does not exist. A cluster
that does not answer may come back, so that is an error of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from music_ray.errors import EnvironmentLacksError, MusicRayError
from music_ray.submit.address import ADDRESS_VARIABLES, shown
from music_ray.submit.job import RUN_KEY, Job
from music_ray.submit.request import Request

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
"""Ray's client would wait for ever for a head that was switched off."""
_TRIES = 5
"""Ids that are tried when others submit the same run at the same moment."""
_MILLISECONDS = 1000.0


class UnreachableError(EnvironmentLacksError):
    """Nothing answers at the address, now."""


class NoTokenError(EnvironmentLacksError):
    """The cluster asks for a token that it was not given, or knows another one."""


class Cluster:
    """The jobs of one cluster. Connects when it is first asked, and again after it was out of reach.

    All that asks it raises UnreachableError (nothing answers at the address, or no job server of Ray) and
    NoTokenError (what is there asks for a token, or for another one).
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client: Any = None

    @property
    def name(self) -> str:
        """The address for messages."""
        return shown(self.address)

    def jobs(self) -> list[Job]:
        """All submitted jobs that the cluster remembers."""
        with self._asking() as client:
            return [_job(one) for one in client.list_jobs() if one.submission_id]

    def job(self, job_id: str) -> Job | None:
        """One job, None if the cluster does not know it."""
        try:
            with self._asking() as client:
                return _job(client.get_job_info(job_id))
        except _NotFoundError:
            return None

    def submit(self, request: Request, archive: str, number: int) -> str:
        """Submits a job and returns its id.

        Args:
            archive: the zip file of its working directory; sent unless the cluster has the same one.
            number: the N of its id; the next free one is taken.

        Raises:
            EnvironmentLacksError: the cluster refuses, or too many ids are taken.
        """
        runtime_env: dict[str, Any] = {"working_dir": archive}
        if request.environment:
            runtime_env["env_vars"] = request.environment
        for job_id in (request.job_id(number + step) for step in range(_TRIES)):
            with contextlib.suppress(_TakenError), self._asking() as client:
                client.submit_job(
                    entrypoint=request.command,
                    submission_id=job_id,
                    runtime_env=runtime_env,
                    metadata=dict(request.metadata),
                    entrypoint_num_cpus=request.driver_cpus or None,
                )
                return job_id
        raise EnvironmentLacksError(
            f"{_TRIES} ids from {request.job_id(number)} on are taken: others submit this run at the same "
            "moment; look with `music-ray status`"
        )

    def stop(self, job_id: str) -> None:
        """Asks Ray to end a job: SIGTERM to its processes, SIGKILL RAY_JOB_STOP_WAIT_TIME_S seconds later."""
        with self._asking() as client:
            client.stop_job(job_id)

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """The job's log from its beginning, piece by piece, until the job has ended.

        Raises:
            whatever Ray's client and its HTTP library raise when the connection breaks.
        """
        if self._client is None:
            raise ConnectionError(f"not connected to {self.name}")
        found: AsyncIterator[str] = self._client.tail_job_logs(job_id)
        return found

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        """Ray's client; what it raises leaves as one of ours."""
        import requests
        from ray.exceptions import AuthenticationError, RpcError

        try:
            if self._client is None:
                self._client = _client(self.address)
                # What stood for it, such as auto, may not be found when the cluster comes back.
                self.address = self._client.get_address()
            yield self._client
        except AuthenticationError:
            raise NoTokenError(
                f"the cluster at {self.name} asks for its token: set RAY_AUTH_MODE=token, and give the token "
                "in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names or in ~/.ray/auth_token (`ray "
                "get-auth-token` prints it on a machine that has it)"
            ) from None
        except (ConnectionError, requests.RequestException, RpcError) as error:
            self._client = None
            raise UnreachableError(self._silence(error)) from None
        except MusicRayError:
            raise
        except (RuntimeError, ValueError) as error:
            raise self._in_words(error) from None

    def _in_words(self, error: Exception) -> Exception:
        """What the server has said, by its status code."""
        text = str(error)
        status = re.search(r"status code (\d{3})", text)
        if "already exists" in text:
            return _TakenError(text)
        if status and status[1] == "404":
            return _NotFoundError(text)
        if status is None or status[1].startswith("5"):
            return UnreachableError(self._silence(error))
        return EnvironmentLacksError(f"the cluster at {self.name} refuses: {_last_line(text)}")

    def _silence(self, error: Exception) -> str:
        return (
            f"no job server of Ray answers at {self.name} ({_last_line(str(error)) or type(error).__name__}"
            "): start the cluster, correct --address or RAY_API_SERVER_ADDRESS (http://HOST:8265), or "
            "forward the port again"
        )


class _NotFoundError(EnvironmentLacksError):
    """The server does not know the job."""


class _TakenError(EnvironmentLacksError):
    """The id is another job's."""


def _client(address: str) -> Any:
    """Ray's client for exactly this address, which does not wait for ever."""
    for name in ADDRESS_VARIABLES:  # they would win over the address that is given
        os.environ.pop(name, None)
    from ray.job_submission import JobSubmissionClient

    for name in ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk", "ray._private"):
        logging.getLogger(name).setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, *args: Any, **options: Any) -> Any:
            options.setdefault("timeout", (_CONNECT_SECONDS, _ANSWER_SECONDS))
            return super()._do_request(*args, **options)

    return Client(address)


def _job(details: Any) -> Job:
    """What we look at of Ray's JobDetails; its runtime_env stays behind, with the variables' values."""
    return Job(
        id=str(details.submission_id or details.job_id),
        state=str(details.status),
        command=details.entrypoint,
        run=(details.metadata or {}).get(RUN_KEY),
        started=details.start_time / _MILLISECONDS if details.start_time else None,
        ended=details.end_time / _MILLISECONDS if details.end_time else None,
        exit_code=details.driver_exit_code,
        error_type=details.error_type,
        message=details.message or "",
    )


def _last_line(text: str) -> str:
    """The end of what may be a server's traceback."""
    return text.strip().rpartition("\n")[2].strip(" .")[:300]
