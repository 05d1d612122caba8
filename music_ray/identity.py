"""Which configuration keys decide what a run's rows are, and which of them each stage depends on.

Knows the configuration alone; the run folder compares and records what is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from music_ray.config import RunConfig
from music_ray.config.base import Section, select

IDENTITY = ("seed", "data", "seeds", "engine", "user", "assistant", "contrast", "generate")
"""Sections that decide what the seeds and rollouts are: another value means another run folder."""
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
    """The identity keys with their values, dotted."""
    nested = {name: _identity_keys(config, name) for name in IDENTITY}
    return dict(_flatten(nested))


def _identity_keys(config: RunConfig, name: str) -> Any:
    value = getattr(config, name)
    return select(value, {"identity"}) if isinstance(value, Section) else value


def result_keys(config: RunConfig, name: str) -> Any:
    """The keys of one section that change what its stage writes: identity and growth, not free ones."""
    value = getattr(config, name)
    return select(value, {"identity", "growth"}) if isinstance(value, Section) else value


def stage_keys(config: RunConfig, stage: str) -> dict[str, Any]:
    """The keys, dotted, that decide what one stage writes."""
    return dict(_flatten({name: result_keys(config, name) for name in STAGE_SECTIONS.get(stage, ())}))


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
    lines = [
        f"{key} is {json.dumps(now.get(key))}, but {folder} was made with {json.dumps(before.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    return "\n".join([*lines, "set the old value again, or give this run another name"])
