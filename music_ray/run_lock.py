"""One driver at a time: a run folder is held by one process, on a disk and on an object store.

On a disk the operating system keeps the lock, and lets go of it even after kill -9. Object stores have
no locks, so there a small file says who holds the folder and is renewed while its driver lives; what a
dead driver held may be taken over once it has not been renewed for LEASE_SECONDS.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from music_ray.errors import RunFolderError, TransientError
from music_ray.progress import say
from music_ray.storage import STORE_ERRORS, open_input, put

LEASE_SECONDS = 60.0
"""How long a lease lasts that nobody renews. Machines' clocks must agree within a few seconds."""
_RENEWALS = 4
_SETTLE_SECONDS = 2.0
"""Two drivers that start together both write; the one that reads its own name back has won. One that the
store or the machine holds up for longer between look and write takes the lease from a winner: that one ends
itself at its next renewal, and the run epoch fences off its engines until then."""

TAKEN_OVER = threading.Event()
"""Set when another driver has taken over the run of this one: nothing may be written into it any more."""


@contextlib.contextmanager
def lock_file(path: Path, folder: str) -> Iterator[None]:
    """Holds a local lock file.

    Raises:
        TransientError: a process of another machine holds it (it is named): one that is gone holds it until
            the file server notices, on NFS 90 seconds.
        RunFolderError: another process of this machine does.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "?"
            elsewhere = not holder.endswith(f" on {socket.gethostname()}") and holder != "?"
            raise (TransientError if elsewhere else RunFolderError)(
                f"{folder} is in use by process {holder}: wait for it, stop it, or give this run another name"
            ) from None
        handle.truncate(0)
        handle.write(_me())
        handle.flush()
        yield


class StoreLease:
    """A lease on an object store; use as a context manager.

    Raises:
        TransientError: another driver holds it; if that is dead, not for long.
        RunFolderError: another driver has taken it at the same moment.
    """

    def __init__(self, fs: pafs.FileSystem, path: str, folder: str, seconds: float = LEASE_SECONDS) -> None:
        self._fs, self._path, self._folder, self._seconds = fs, path, folder, seconds
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="run-lease", daemon=True)

    def __enter__(self) -> StoreLease:
        held = self._read()
        age = time.time() - held.get("renewed", 0.0)
        if held and age < self._seconds:
            raise TransientError(
                f"{self._folder} is in use by process {held.get('who', '?')}, which said so {age:.0f} s ago: "
                f"stop it, give this run another name, or, if it is dead, try again in "
                f"{self._seconds - age:.0f} s"
            )
        self._write()
        time.sleep(min(_SETTLE_SECONDS, self._seconds / _RENEWALS))
        if (winner := self._read()).get("token") != self._token:
            raise RunFolderError(
                f"{self._folder} was taken by process {winner.get('who', '?')} at the same moment: wait for "
                "it, or give this run another name"
            )
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(timeout=self._seconds)
        try:
            if self._read().get("token") == self._token:
                self._fs.delete_file(self._path)
        except STORE_ERRORS as error:  # how the command ended is what its user must hear, not this
            say(f"{self._folder}: the lease could not be given back ({error}), it ends by itself")

    def _renew(self) -> None:
        while not self._over.wait(self._seconds / _RENEWALS):
            try:
                if self._read().get("token", self._token) != self._token:
                    # This driver slept too long. Its engines are fenced off by the run epoch.
                    say(f"{self._folder}: another driver has taken this run over, this one ends")
                    TAKEN_OVER.set()
                    os.kill(os.getpid(), signal.SIGTERM)  # as Ctrl-C: nothing of this one is wanted any more
                    return
                self._write()
            except STORE_ERRORS as error:  # the next renewal tries again
                say(f"{self._folder}: the lease could not be renewed ({error})")

    def _read(self) -> dict[str, Any]:
        if self._fs.get_file_info(self._path).type == pafs.FileType.NotFound:
            return {}
        try:
            with open_input(self._fs, self._path) as handle:
                lease = json.loads(handle.read())
        except (FileNotFoundError, ValueError):  # given back, or half written, at this very moment
            return {}
        return lease if isinstance(lease, dict) else {}

    def _write(self) -> None:
        lease = {"token": self._token, "who": _me(), "renewed": time.time()}
        put(self._fs, self._path, json.dumps(lease).encode())


def _me() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"
