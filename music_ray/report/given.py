"""Which evaluations a run's page shows: those below RUN/evaluations, and those that were named for it.

What was named is remembered in the run folder, so that a page that is built again shows it again. Knows
folders and the two files that tell their kind, not what these hold.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.fs as pafs

from music_ray.config.load import resolve_config
from music_ray.errors import InputError
from music_ray.public import public_place
from music_ray.report.jsonlines import read_object
from music_ray.rundir import RunDir
from music_ray.storage import entries, parent_and_name

OWN = "evaluations"
"""Folder of the run below which every evaluation is taken."""
RECORD = ("report", "evaluations.json")
_SECRET = re.compile(r"://[^/\s@]*:[^/\s@]*@")
"""A key in a URI. A name alone before the @ is none: it may be a user's, or a container's."""
EVALUATION, BEST_OF_N = "evaluation.json", "results.json"


@dataclass(frozen=True, slots=True)
class Place:
    """An evaluation's folder."""

    name: str
    """As the user would type it, credentials included: fit for no page."""
    folder: RunDir

    @property
    def kind(self) -> str | None:
        """The file that holds its results; None where there is none."""
        return next((file for file in (EVALUATION, BEST_OF_N) if self.folder.exists(file)), None)


def places(run: RunDir) -> list[Place]:
    """The evaluations of a run: its own by name, then the named ones that are not among these."""
    found = {one.folder.root: one for one in _own(run)}
    for one in _named(run):
        found.setdefault(one.folder.root, one)
    return list(found.values())


def remember(run: RunDir, folders: Sequence[str]) -> None:
    """Keeps these folders, instead of those named before, for this and later pages of the run.

    Raises:
        InputError: one is no evaluation's folder, or has a key in it, which would be kept beside the page.
    """
    named = []
    for name in folders:
        if _SECRET.search(name):
            raise InputError(
                f"--evaluation {public_place(name)} was named with its key, which {'/'.join(RECORD)} would "
                "keep beside the page: set the key in the environment (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY for s3), and name the folder without it"
            )
        location = name if "://" in name else os.path.abspath(os.path.expanduser(name))
        if Place(name, _open(location)).kind is None:
            raise InputError(
                f"{name} is no evaluation: it has neither {EVALUATION} nor {BEST_OF_N}; name the --out of "
                "music-ray evaluate --model or of music-ray best-of-n"
            )
        named.append({"name": name, "location": location})
    run.write_text(json.dumps(named, indent=2, ensure_ascii=False) + "\n", *RECORD)


def _own(run: RunDir) -> list[Place]:
    infos = entries(run.fs, run.path(OWN))
    names = sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)
    kept = [name for name in names if not name.startswith((".", "_"))]
    found = [Place(run.display(OWN, name), _open(run.display(OWN, name))) for name in kept]
    return [one for one in found if one.kind is not None]


def _named(run: RunDir) -> list[Place]:
    if not run.exists(*RECORD):
        return []
    try:
        named = json.loads(run.read_text(*RECORD))
        return [Place(str(one["name"]), _open(one["location"])) for one in named]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"it is damaged ({error}): name the evaluations again, music-ray report {run.display()} "
            "--evaluation FOLDER"
        ) from None


def _open(location: str) -> RunDir:
    parent, name = parent_and_name(location)
    return RunDir(resolve_config({"name": name, "runs_dir": parent}))


def read_results(place: Place, file: str) -> dict[str, object]:
    """The document of an evaluation's folder.

    Raises:
        InputError: it is not there, or no JSON object.
    """
    document = read_object(place.folder, file)
    if document is None:
        raise InputError(f"{file} is missing or no JSON object: run the command that made it again")
    return document
