"""replication.json: what a folder's replication is made from, and whether a command may go on with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from music_ray import miniature
from music_ray.config import RunConfig
from music_ray.config.base import select
from music_ray.errors import ConfigError, InputError
from music_ray.identity import identity_of
from music_ray.models import resolve_model
from music_ray.replicate.scale import Scale

FILE = "replication.json"
_SECTIONS = ("pairs", "mix", "train")
"""What decides the arms besides the identity of rollouts."""


def made_from(config: RunConfig, scale: Scale) -> dict[str, Any]:
    """All that decides the numbers: scale, configuration, language model, and the world's code."""
    decisive = {name: select(getattr(config, name), {"identity"}) for name in _SECTIONS}
    code = sorted(Path(miniature.__file__).parent.glob("*.py"))
    models = {config.engine.model, config.train.base_model}
    return {
        "scale": json.loads(json.dumps(asdict(scale))),
        "configuration": json.loads(json.dumps(identity_of(config) | decisive)),
        "language model": {name: _digest(_files(resolve_model(name))) for name in sorted(models)},
        "world (music_ray/miniature)": _digest(code),
    }


def open_folder(out: Path, wanted: dict[str, Any]) -> None:
    """Makes the folder, or checks that its replication was made from the same.

    Raises:
        ConfigError: it holds a replication of another scale, configuration, language model or world.
        InputError: its replication.json is damaged.
    """
    file = out / FILE
    if file.exists():
        before = read_json(file, "put the file back, or name another --out")
        other = [part for part in {**wanted, **before} if before.get(part) != wanted.get(part)]
        if other:
            raise ConfigError(
                f"{out} holds a replication of another {' and '.join(other)}: name another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(wanted, indent=2) + "\n")


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """A file of ours.

    Raises:
        InputError: it is damaged.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise InputError(f"{file} is damaged ({error}): {remedy}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is damaged (it holds no JSON object): {remedy}")
    return found


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def _files(model: str) -> list[Path]:
    """A model folder's files; none where the model is an id of the hub."""
    return sorted(path for path in Path(model).glob("*") if path.is_file())


def _digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]
