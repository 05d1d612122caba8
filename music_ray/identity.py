"""Which configuration keys decide what a run's rows are, and which of them each stage depends on.

Knows the configuration and the files of own contrasts that it points at; the run folder compares and
records what is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from music_ray.config import RunConfig
from music_ray.config.base import Section, select
from music_ray.errors import InputError
from music_ray.prompts import own

IDENTITY = ("seed", "data", "seeds", "engine", "user", "assistant", "contrast", "generate")
"""Sections that decide what the seeds and rollouts are: another value means another run folder."""
GATE_FILES = ("eval_set ", "plugin ")
"""How names begin of what gates read besides rollouts (music_ray.gate_inputs)."""
STAGE_SECTIONS = {
    "seeds": ("seed", "data", "seeds"),
    "generate": ("seed", "engine", "user", "assistant", "contrast", "generate"),
    "pairs": ("pairs",),
    "mix": ("mix",),
    "train": ("seed", "train"),
    "evaluate": ("evaluate",),
    "report": ("report",),
}


def identity_of(config: RunConfig) -> dict[str, Any]:
    """The identity keys with their values, dotted, and the hashes of an own template or plugin.

    Raises:
        InputError: the file of a template or plugin is missing.
    """
    nested = {name: _identity_keys(config, name) for name in IDENTITY}
    nested["contrast"] |= own.hashes(config.contrast)
    return dict(_flatten(nested))


def _identity_keys(config: RunConfig, name: str) -> Any:
    value = getattr(config, name)
    return select(value, {"identity"}) if isinstance(value, Section) else value


def result_keys(config: RunConfig, name: str) -> Any:
    """The keys of one section that change what its stage writes: identity and growth, not free ones."""
    value = getattr(config, name)
    keys = select(value, {"identity", "growth"}) if isinstance(value, Section) else value
    if name == "contrast":
        try:
            keys |= own.hashes(config.contrast)
        except InputError:  # a report is also read where the file is not; what generates says so
            keys["own_files"] = "missing"
    return keys


def stage_keys(config: RunConfig, stage: str) -> dict[str, Any]:
    """The keys, dotted, that decide what one stage writes."""
    return dict(_flatten({name: result_keys(config, name) for name in STAGE_SECTIONS.get(stage, ())}))


def same_reads(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two stages were made from the same files.

    What can't be looked at from here (None now) is taken for unchanged: a run folder may go on without it on
    another machine, and a stage that is made anew asks for it. So are a gate's files where the record has no
    word of them: an older music_ray did not look at them, and which of them there are is a configuration key.
    """
    unrecorded = {name for name in now if name.startswith(GATE_FILES)} - before.keys()
    return before.keys() == now.keys() - unrecorded and all(
        value is None or value == before[name] for name, value in now.items() if name not in unrecorded
    )


def same_keys(before: dict[str, Any], now: dict[str, Any], defaults: dict[str, Any]) -> bool:
    """Whether two stages were made from the same values.

    A key that an older music_ray did not know had what is its default now: an upgrade that brings new
    keys must not make days of finished work out of date.
    """
    keys = before.keys() | now.keys()
    return all(before.get(key, defaults.get(key)) == now.get(key, defaults.get(key)) for key in keys)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def identity_difference(before: dict[str, Any], now: dict[str, Any], folder: str) -> str:
    """Every key that differs, with both values, and the remedy."""
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    lines = [
        f"{key} is {json.dumps(now.get(key))}, but {folder} was made with {json.dumps(before.get(key))}"
        for key in changed
    ]
    remedy = "set the old value again, or give this run another name"
    if any(key.endswith("_hash") for key in changed):
        remedy = (
            "restore the old template or plugin file, set the old values again, or give this run another name"
        )
    return "\n".join([*lines, remedy])
