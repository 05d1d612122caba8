"""Digests of what the quality gates read besides rollouts: evaluation sets, and the source of plug-ins.

They are part of what decides whether the pairs stage is up to date. It does not know what the gates do with
these files. A data set of the hub is not looked at: its id and revision are configuration keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from music_ray.config import GatesConfig
from music_ray.data_files import DataFile, find_files
from music_ray.errors import InputError
from music_ray.plugins import module_file
from music_ray.storage import open_input

WHOLE_BYTES = 256 * 2**20
"""Files up to this size are read to their end, whatever store they lie in. Of larger ones the size, the time
of the last change and both ends count: a command that finds all finished must not read gigabytes for it."""
END_BYTES = 8 * 2**20
"""So much of either end; a Parquet file's last bytes say where everything in it lies."""
_CHUNK = 2**20

_seen: dict[tuple[Any, ...], str] = {}
"""Digests by place, size and time of the last change: one command asks several times."""


def gate_inputs(gates: GatesConfig) -> dict[str, str | None]:
    """A digest for each evaluation set that is read from files, and for each plug-in's source file.

    A plug-in's own file counts, not what it imports.

    Returns:
        'eval_set NAME' and 'plugin MODULE:FUNCTION' → digest, None where it can't be read from here: a run
        folder may have been moved to a machine without it.
    """
    found: dict[str, str | None] = {}
    for entry in gates.eval_sets if gates.eval_overlap else []:
        if entry.path is not None:
            found[f"eval_set {entry.title}"] = _eval_set(entry.path)
    for name in gates.plugins:
        found[f"plugin {name}"] = _source(module_file(name.partition(":")[0]))
    return found


def _eval_set(location: str) -> str | None:
    """Over the contents of all its files in their order."""
    try:
        contents = [_content(file) for file in find_files(location, "name another one")]
    except (InputError, OSError):  # whoever makes the pairs anew is told
        return None
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def _source(file: Path | None) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() if file else None
    except OSError:
        return None


def _content(file: DataFile) -> str:
    info = file.filesystem.get_file_info(file.path)
    key = (file.filesystem.type_name, file.path, info.size, info.mtime_ns)
    if key not in _seen:
        digest = hashlib.sha256()
        if info.size > WHOLE_BYTES:
            digest.update(f"{info.size} {info.mtime_ns}".encode())
        for part in _parts(file, info.size):
            digest.update(part)
        _seen[key] = digest.hexdigest()
    return _seen[key]


def _parts(file: DataFile, size: int) -> Iterator[bytes]:
    """The bytes that count."""
    with open_input(file.filesystem, file.path) as handle:
        if size > WHOLE_BYTES:
            yield handle.read(END_BYTES)
            handle.seek(size - END_BYTES)
            yield handle.read(END_BYTES)
            return
        while part := handle.read(_CHUNK):
            yield part
