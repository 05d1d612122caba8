"""What a model that an evaluation names is to a run: its own, what that started from, or another.

A model is known by the digest that was recorded when it was evaluated: folders are moved, relative names mean
something else elsewhere, and another training may have left another model in the same place. Where there is
no digest to compare, its place decides.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from music_ray.report.collect import ReportData
from music_ray.report.model_digest import model_digest
from music_ray.report.show import place
from music_ray.rundir import RunDir

OWN, STARTED_FROM = "the run's model", "what it started from"
_UNTRAINED = "untrained:"
_MODEL = "/model"


@dataclass(frozen=True, slots=True)
class Role:
    """A model's part."""

    key: str
    """The same for models of two runs that may share a row."""
    label: str
    """For the page."""
    note: str = ""
    """What must be said of it beside the table."""


@dataclass(frozen=True, slots=True)
class Roles:
    """A run, and how its models are known."""

    run: RunDir
    own: str
    """Digest of the run's model; empty where it is not known."""
    former: frozenset[str]
    """The run's folder, as evaluations of this very model called it."""

    def of(self, name: str, digest: str) -> Role:
        """The part of a model.

        Args:
            name: as it was named on a command line.
            digest: as it was recorded; empty where it was not.
        """
        other = Role(digest or name, place(name))
        if name.startswith(_UNTRAINED):
            started = name.removeprefix(_UNTRAINED)
            is_of_run = _bare(started) in self.former or self._lies_at(started)
            return Role(STARTED_FROM, STARTED_FROM) if is_of_run else other
        lies_there = self._lies_at(name, "model")
        if not digest or not self.own:
            return Role(OWN, OWN) if lies_there else other
        if digest == self.own:
            return Role(OWN, OWN)
        return Role(other.key, other.label, _changed(name)) if lies_there else other

    def _lies_at(self, name: str, *below: str) -> bool:
        if _bare(name) == _bare(self.run.display(*below)):
            return True
        return self.run.is_local and os.path.abspath(os.path.expanduser(name)) == self.run.path(*below)


def roles_of(run: RunDir, data: ReportData) -> Roles:
    """How the models of a run's evaluations are known; reads the run's model where they have digests."""
    named = [
        (_bare(name), found.digests[mark])
        for found in data.beside
        for mark, name in found.models.items()
        if mark in found.digests
    ]
    own = model_digest(run) if named else ""
    former = {name.removesuffix(_MODEL) for name, one in named if one == own and name.endswith(_MODEL)}
    return Roles(run, own, frozenset(former))


def _changed(name: str) -> str:
    return (
        f"{place(name)} holds another model now than the one that was evaluated under this name, which "
        f"therefore is not called {OWN}."
    )


def _bare(name: str) -> str:
    return name.rstrip("/")
