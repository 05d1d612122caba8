"""best_of_n.json: what a folder's conversations were made from, and whether a command may go on with it.

Knows the configuration's identity keys; judges, prompts and their number are none: these may change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from music_ray.config import RunConfig
from music_ray.config.base import select
from music_ray.errors import RunFolderError
from music_ray.plugins import module_file
from music_ray.prompts import prompt_hash
from music_ray.rundir import RunDir

FILE = "best_of_n.json"
_OF_OTHERS = ("config.yaml", "score.json")
"""What a run's folder and one of scores hold."""
_SECTIONS = ("engine", "assistant", "user", "best_of_n")


def identity(config: RunConfig, digests: list[str]) -> dict[str, Any]:
    """All that decides what the conversations are, by dotted key."""
    nested: dict[str, Any] = {name: select(getattr(config, name), {"identity"}) for name in _SECTIONS}
    nested |= {"seed": config.seed, "models": sorted(digests), "prompt_hash": prompt_hash()}
    if (checker := config.best_of_n.checker) is not None and ":" in checker:
        file = module_file(checker.partition(":")[0])
        nested["checker_hash"] = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file else ""
    return dict(_flatten(nested))


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def read_record(run: RunDir) -> dict[str, Any]:
    """The record, or an empty one.

    Raises:
        RunFolderError: it is damaged.
    """
    if not run.exists(FILE):
        return {}
    try:
        record = json.loads(run.read_text(FILE))
        return {**record, "made_from": dict(record["made_from"]), "starts": int(record["starts"])}
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{run.display(FILE)} is damaged ({error}): name another folder with --out"
        ) from None


def write_record(run: RunDir, record: dict[str, Any]) -> None:
    """Replaces the record."""
    run.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", FILE)


def check_folder(run: RunDir, made_from: dict[str, Any]) -> dict[str, Any]:
    """The record of a folder that may be gone on with; writes nothing.

    Raises:
        RunFolderError: it is a folder of another command, or its conversations were made from something else,
            which is named with both values.
    """
    record = read_record(run)
    other = next((name for name in _OF_OTHERS if not record and run.exists(name)), None)
    if other is not None:
        raise RunFolderError(f"{run.display()} holds {other} and no {FILE}: name a new folder with --out")
    before = record.get("made_from", made_from)
    for key in sorted(before.keys() | made_from.keys()):
        if before.get(key) != made_from.get(key):
            raise RunFolderError(
                f"{run.display()} was made with {key}={json.dumps(before.get(key))}, now it is "
                f"{json.dumps(made_from.get(key))}: set the old value again, or name a new folder with --out"
            )
    return record
