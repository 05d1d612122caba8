"""What a job is made of: which rows go in, who works on them, and where the shards lie.

A worker lives in an actor beside its engines. It is named by its place, so that a job can travel to
another machine as text.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from music_ray.config import RunConfig


class Row(Protocol):
    """A finished row: a dataclass that fits the job's schema."""

    id: int
    status: str
    """'ok' or 'error'."""
    reason: str


class Worker(Protocol):
    """Works on rows inside an actor; made once its engines are up."""

    async def work(self, row: dict[str, Any]) -> Row:
        """A finished row, whatever happens to its requests.

        Raises:
            EngineDeadError: an engine is gone; the row is not decided.
        """
        ...

    def give_up(self, row: dict[str, Any], reason: str, detail: str) -> Row:
        """The error row of an input that is not tried any more."""
        ...

    def counts(self) -> dict[str, int]:
        """What was done so far by this worker; every number only grows."""
        ...


@dataclass(frozen=True)
class Job:
    """One pass of rows through the pool."""

    name: str
    """For what is said, e.g. 'generate'."""
    unit: str
    """What a row is called, e.g. 'rollouts'."""
    worker: str
    """module:callable that makes a Worker of (config, run_epoch, payload, metrics)."""
    folder: tuple[str, ...]
    """Where in the run folder the shards lie."""
    schema: pa.Schema
    run_epoch: int
    """Which start of the stage it is, from 1: names the shards, and fences off an older start's actors."""
    payload: dict[str, Any] = field(default_factory=dict)
    """What the worker needs besides the configuration; any values that Ray can carry."""
    config: RunConfig | None = None
    """What actors are configured with; the run's own when None."""
    places: int | None = None
    """Rows that an engine takes at once, where the configuration does not say it and its key-value memory
    is not what bounds it; as its engine derives when None."""


def load_worker(place: str) -> Callable[..., Worker]:
    """The callable at 'module:name'."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
