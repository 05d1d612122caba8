"""A real head of Ray for tests: on 127.0.0.1 alone, on free ports, with a token and a folder of its own.

Several may run on one machine, beside any other Ray. `ray stop` would end all of them, so it is never used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PORTS = (
    "--port", "--dashboard-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
    "--metrics-export-port", "--runtime-env-agent-port", "--node-manager-port", "--object-manager-port",
    "--ray-client-server-port",
)  # fmt: skip
_START_SECONDS = 120
_PR_SET_PDEATHSIG = 1


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _end_with_the_tests() -> None:
    """In the child: Linux sends SIGTERM when the process that runs the tests is gone, however it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class RayHead:
    """The processes of one head, and what a client needs to reach it."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp")))
    """Short: Ray's sockets lie below it, and a socket's path has 107 letters."""
    ports: dict[str, int] = field(
        default_factory=lambda: dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    )
    options: list[str] = field(default_factory=list)
    """More options of `ray start`; a later one goes before an earlier one."""
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.token = secrets.token_hex(32)
        (self.folder / "token").write_text(self.token)
        (self.folder / "home").mkdir()

    @property
    def address(self) -> str:
        """Its job server."""
        return f"http://127.0.0.1:{self.ports['--dashboard-port']}"

    @property
    def logs(self) -> Path:
        """Ray's logs of the newest session."""
        return self.folder / "ray" / "session_latest" / "logs"

    def environment(self, *, with_token: bool = True) -> dict[str, str]:
        """Variables of a client, or of the head itself."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        kept["PATH"] = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        kept["HOME"] = str(self.folder / "home")
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token")}
        return kept | (token if with_token else {})

    def start(self) -> None:
        """Starts it, and waits until its job server answers."""
        ray = str(Path(sys.executable).parent / "ray")
        places = [f"{name}={port}" for name, port in self.ports.items()]
        with (self.folder / "head.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(
                        ray,
                        "start",
                        "--head",
                        "--block",
                        "--disable-usage-stats",
                        f"--temp-dir={self.folder}/ray",
                    ),
                    *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2"),
                    *(
                        "--object-store-memory=100000000",
                        "--min-worker-port=0",
                        "--max-worker-port=0",
                        *places,
                        *self.options,
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_the_tests,
                # Else Ray puts the machine's own address in the place of 127.0.0.1, and listens on it.
                env=self.environment() | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            said = (self.folder / "head.log").read_text()
            assert self.process.poll() is None, f"the head has ended:\n{said}"
            assert time.monotonic() < until, f"the head does not answer:\n{said}"
            time.sleep(0.3)

    def processes(self) -> list[psutil.Process]:
        """Everything that the head has started, jobs included."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def driver(self, stage: str) -> psutil.Process:
        """The process of a job: `python -m music_ray STAGE …`."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[1:4] == ["-m", "music_ray", stage]:
                    return process
        raise AssertionError(f"no driver of {stage} is running")

    def kill(self) -> None:
        """Ends all of it at once, as when the machine is switched off."""
        if self.process is None:
            return
        left = self.processes()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=30)
        self.process = None

    def close(self) -> None:
        """Leaves nothing behind."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        request = urllib.request.Request(
            f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
