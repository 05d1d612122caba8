"""Model folders on an object store, such as a run's own `model/`: each machine that uses one keeps a copy.

A copy is named by what lies in the store, so a model that was trained anew is fetched anew. Nothing is
fetched but weights as safetensors, configuration and tokenizer: no code, no pickles. This module loads no
model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from music_ray.errors import EnvironmentLacksError, InputError
from music_ray.model_folder import DECIDE
from music_ray.progress import say
from music_ray.public import without_credentials
from music_ray.rundir import digest, open_filesystem
from music_ray.storage import as_user_error, fetch, open_input


def fetch_model(location: str, cache: Path) -> Path:
    """The local copy of a model folder, fetched if this machine has none yet.

    Args:
        location: a URI.
        cache: the folder of all copies.

    Raises:
        InputError: there is no model folder at the URI, or it can't be reached.
        EnvironmentLacksError: the disk is too small, or the store refuses this process.
        TransientError: the store failed for too long.
    """
    shown = without_credentials(location)
    try:
        fs, path = open_filesystem(location)
        files = _files(fs, path.rstrip("/"))
        _check(files, shown)
        target = cache / _key(files, shown)
        if not target.is_dir():
            _fetch(fs, files, target, shown)
    except OSError as error:
        raise as_user_error(error) from None
    return target


def stored_configuration(location: str) -> dict[str, Any] | None:
    """What config.json of a model folder says; None where there is none. Nothing else is read.

    Raises:
        MusicRayError: the store can't be reached.
        ValueError: it is damaged.
    """
    fs, path = open_filesystem(location)
    try:
        with open_input(fs, f"{path.rstrip('/')}/config.json") as handle:
            return json.loads(handle.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise as_user_error(error) from None


def _files(fs: pafs.FileSystem, folder: str) -> list[pafs.FileInfo]:
    found = fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    return [one for one in found if one.type == pafs.FileType.File and one.base_name.endswith(DECIDE)]


def _key(files: list[pafs.FileInfo], shown: str) -> str:
    return digest([shown, sorted((one.base_name, one.size, one.mtime_ns) for one in files)])


def _check(files: list[pafs.FileInfo], shown: str) -> None:
    names = {one.base_name for one in files}
    if "manifest.json" in names and "config.json" not in names:
        raise InputError(f"{shown} is a run folder: name the model in it, {shown.rstrip('/')}/model")
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"no model folder at {shown}: it has no config.json with .safetensors files beside it; name one "
            "that training has exported, such as s3://bucket/runs/demo/model"
        )


def _fetch(fs: pafs.FileSystem, files: list[pafs.FileInfo], target: Path, shown: str) -> None:
    """The copy appears when it is complete; two processes that fetch at once do no harm."""
    target.parent.mkdir(parents=True, exist_ok=True)
    need, free = sum(one.size for one in files), shutil.disk_usage(target.parent).free
    if need > free:
        raise EnvironmentLacksError(
            f"{shown} has {need / 2**30:.1f} GiB, {target.parent} has {free / 2**30:.1f} GiB free: free some "
            "(older copies lie there), or set MUSIC_RAY_CACHE to another disk"
        )
    say(f"model: fetching {shown} ({need / 1e6:.0f} MB) to {target}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch:
        complete = Path(scratch) / "model"
        complete.mkdir()
        for one in files:
            fetch(fs, one.path, complete / one.base_name)
        if _key(_files(fs, files[0].path.rpartition("/")[0]), shown) != target.name:
            raise InputError(f"{shown} was changed while it was fetched: wait for its training to end")
        try:
            complete.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was quicker, and its copy is as good
                raise
