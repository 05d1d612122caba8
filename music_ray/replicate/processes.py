"""Runs side by side: each in a process of its own, as a driver of Ray is; all of them on this process's Ray.

Two processes that start a local Ray each at the same time can keep each other from doing so.

python -m music_ray.replicate.processes STAGE …    the configuration as JSON on its standard input
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from music_ray.config import RunConfig
from music_ray.errors import (
    EXIT_AGAIN,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER,
    MusicRayError,
    StageError,
    TransientError,
)
from music_ray.progress import quieten_libraries, say


def run_at_once(configs: Mapping[str, RunConfig], stages: Sequence[str], most: int) -> None:
    """Brings the stages of every run to their end, at most so many runs at a time.

    What they say is said here, after the run's name. When one fails, those at work come to their end and
    no other begins; with Ctrl-C all of them are stopped, and go on from there the next time.

    Args:
        configs: by the name that stands before the lines.

    Raises:
        MusicRayError: what the first run that failed said last.
    """
    children = _Children(stages, _address(next(iter(configs.values()))))
    with ThreadPoolExecutor(most, thread_name_prefix="run") as pool:
        try:
            begun = [pool.submit(children.run, name, config) for name, config in configs.items()]
            for one in begun:
                one.result()
        except BaseException:
            children.stop()
            pool.shutdown(cancel_futures=True)
            raise
    if children.error is not None:
        raise children.error


def _address(config: RunConfig) -> str:
    """Of the Ray that this process is connected to, or starts."""
    from music_ray.ray_session import ensure_ray

    ensure_ray(config)  # before ray is imported here: it says where Ray may listen, which Ray reads then
    import ray

    return str(ray.get_runtime_context().gcs_address)


class _Children:
    """The processes at work, and the first error of one."""

    def __init__(self, stages: Sequence[str], address: str) -> None:
        self._stages = stages
        self._environment = {**os.environ, "RAY_ADDRESS": address}
        self._lock = threading.Lock()
        self._at_work: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self.error: MusicRayError | None = None

    def run(self, name: str, config: RunConfig) -> None:
        """One run from its start to its end, in the calling thread."""
        child = self._start()
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError), child.stdin:  # it is gone already, and says why
            child.stdin.write(config.model_dump_json())
        last = "it said nothing"
        for line in child.stdout:
            last = line.rstrip()
            say(f"{name} | {last}")
        code = child.wait()
        with self._lock:
            self._at_work.discard(child)
            if code not in (EXIT_OK, EXIT_INTERRUPTED) or (code == EXIT_INTERRUPTED and not self._stopped):
                kinds = {EXIT_USER: MusicRayError, EXIT_AGAIN: TransientError}
                kind = kinds.get(code, StageError)
                self.error = self.error or kind(f"{name} ended with exit code {code}: {last}")

    def _start(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopped or self.error is not None:
                return None
            # A session of its own: Ctrl-C reaches it through `stop`, once.
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, *self._stages],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                encoding="utf-8", errors="replace", start_new_session=True, env=self._environment,
            )  # fmt: skip
            self._at_work.add(child)
            return child

    def stop(self) -> None:
        """Asks all to end where they can go on."""
        with self._lock:
            self._stopped = True
            for child in self._at_work:
                child.send_signal(signal.SIGINT)  # SIGTERM is Ray's own affair once it runs


def _main(stages: Sequence[str]) -> int:
    """The child's side; its last line says why it failed."""
    from music_ray.run import run_stages

    signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a shell that ignores it
    quieten_libraries()
    config = RunConfig.model_validate_json(sys.stdin.read())
    try:
        run_stages(config, stages)
    except MusicRayError as error:
        say(" ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
