"""JSON and JSON-lines files of the run folder, as far as they can be read.

A process that was killed may leave half a line behind: such a line is counted, not raised. What can be read
may have another form than its command writes: whoever reads it does so inside `naming_damage`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from music_ray.errors import InputError, MusicRayError
from music_ray.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Objects:
    """What a JSON-lines file holds."""

    objects: list[dict[str, Any]]
    num_unreadable: int
    """Lines that are no JSON object."""


@contextlib.contextmanager
def naming_damage(what: str, remedy: str) -> Iterator[None]:
    """Around the reading of a document: a value of another kind in it is a sentence, not a traceback.

    Raises:
        InputError: the document is damaged.
    """
    try:
        yield
    except MusicRayError:  # which are ValueErrors, and have said what is wrong
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} is damaged ({type(error).__name__}: {error}): {remedy}") from None


def read_objects(run: RunDir, *parts: str) -> Objects:
    """All objects of a JSON-lines file; none when the file is missing."""
    objects: list[dict[str, Any]] = []
    num_unreadable = 0
    lines = run.read_text(*parts).split("\n") if run.exists(*parts) else []
    for line in filter(str.strip, lines):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            objects.append(value)
        else:
            num_unreadable += 1
    return Objects(objects, num_unreadable)


def read_object(run: RunDir, *parts: str) -> dict[str, Any] | None:
    """One JSON object, or None when the file is missing or holds something else."""
    if not run.exists(*parts):
        return None
    try:
        value = json.loads(run.read_text(*parts))
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
