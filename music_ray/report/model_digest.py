"""The digest of a run's own model, by which evaluations of it are known whatever its folder is called.

It is the digest that evaluation.json and best-of-N's results.json record. The whole model is read for it, so
it is kept in this machine's cache, under what the files look like from outside: a model is read once.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from music_ray.model_folder import deciding_files, folder_digest
from music_ray.models import cache_dir
from music_ray.progress import say
from music_ray.rundir import RunDir, digest

_LARGE = 2**30
"""Bytes from which reading takes seconds, so that it is told."""


def model_digest(run: RunDir) -> str:
    """The digest of RUN/model.

    Empty where it can't be had cheaply or at all: no model there (any more), or one on an object store, of
    which every byte would have to be fetched.
    """
    folder = Path(run.path("model"))
    if not run.is_local or not (folder / "config.json").is_file():
        return ""
    try:
        files = deciding_files(folder)
        kept = cache_dir() / "digests" / _from_outside(files)
        return _kept(kept) or _read(folder, files, kept, run.display("model"))
    except OSError:  # a training that replaces it, or a file that this user may not read
        return ""


def _from_outside(files: list[Path]) -> str:
    """Changes whenever a file was written anew; a folder that was moved keeps it."""
    found = [(path.name, path.stat()) for path in files]
    return digest([[name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for name, one in found])


def _kept(place: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = place.read_text(encoding="ascii")
        return found if re.fullmatch("[0-9a-f]{16}", found) else ""
    return ""


def _read(folder: Path, files: list[Path], kept: Path, shown: str) -> str:
    size = sum(path.stat().st_size for path in files)
    if size >= _LARGE:
        say(f"report: reading {shown} once ({size / 2**30:.1f} GiB), to know evaluations of it")
    found = folder_digest(folder)
    with contextlib.suppress(OSError):  # without a cache it is read again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
        temporary.write_text(found, encoding="ascii")
        temporary.replace(kept)
    return found
