"""best_of_n.json: what a folder's conversations were made from, and whether a command may go on with it.

Knows the configuration's identity keys, and with which numbers the reward models compute; judges, prompts and
their number are none of it: these may change.
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
_RESOLVED = {"scorer_dtype": "dtype", "scorer_max_len": "max_model_len"}
"""Keys of best_of_n that say how a scorer computes, and those of its engine that hold what they came to."""
_BY_MODEL = tuple(f"best_of_n.{name}" for name in _RESOLVED)


def identity(config: RunConfig) -> dict[str, Any]:
    """All that decides what the conversations are besides the reward models, by dotted key."""
    nested: dict[str, Any] = {name: select(getattr(config, name), {"identity"}) for name in _SECTIONS}
    nested |= {"seed": config.seed, "prompt_hash": prompt_hash()}
    for name in _RESOLVED:  # what they come to counts, with each model: see identity_of_models
        del nested["best_of_n"][name]
    if (checker := config.best_of_n.checker) is not None and ":" in checker:
        file = module_file(checker.partition(":")[0])
        nested["checker_hash"] = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file else ""
    return dict(_flatten(nested))


def identity_of_models(scorers: dict[str, RunConfig]) -> dict[str, Any]:
    """The reward models, and the number format and longest conversation that each of them is used with.

    With those resolved: `auto` is another format on another device, and would pick other candidates.

    Args:
        scorers: their configurations by digest, as tools.scoring_config makes them.
    """
    nested = {
        name: {model: getattr(one.engine, key) for model, one in scorers.items()}
        for name, key in _RESOLVED.items()
    }
    return {"models": sorted(scorers), **dict(_flatten({"best_of_n": nested}))}


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

    Args:
        made_from: identity, and identity_of_models once these are known: before, they are not looked at.

    Raises:
        RunFolderError: it is a folder of another command, or its conversations were made from something else,
            which is named with both values.
    """
    record = read_record(run)
    other = next((name for name in _OF_OTHERS if not record and run.exists(name)), None)
    if other is not None:
        raise RunFolderError(f"{run.display()} holds {other} and no {FILE}: name a new folder with --out")
    before = record.get("made_from", made_from)
    # A key that an older music_ray did not know had what is its default now.
    defaults = identity(RunConfig(name="defaults"))
    for key in sorted(before.keys() | made_from.keys()):
        if _may_lack(key) and not (key in before and key in made_from):
            continue
        was, now = (values.get(key, defaults.get(key)) for values in (before, made_from))
        if was != now:
            raise RunFolderError(
                f"{run.display()} was made with {key}={json.dumps(was)}, now it is "
                f"{json.dumps(now)}: set the old value again{_hint(key)}, or name a new "
                "folder with --out"
            )
    return record


def _may_lack(key: str) -> bool:
    """Models are not known at first; and a folder that an older version made has none of their formats."""
    return key == "models" or key.startswith(_BY_MODEL)


def _hint(key: str) -> str:
    follows = key.startswith("best_of_n.scorer_dtype")
    return " (auto follows best_of_n.scorer_device)" if follows else ""
