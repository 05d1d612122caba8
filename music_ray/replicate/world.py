"""The files of the miniature's world that a replication reads: preferences, first messages, suites."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from music_ray.miniature.mistakes import modify_instruction
from music_ray.miniature.parts import seeds, split_of_part
from music_ray.miniature.place import spoil
from music_ray.miniature.preferences import preference_rows, write_rows
from music_ray.miniature.suites import build
from music_ray.miniature.world import conversation
from music_ray.progress import say
from music_ray.replicate.scale import Scale

PREFERENCES = "preferences.parquet"
MORE = "more-preferences.parquet"
OPENINGS = "openings.parquet"
DEV_OPENINGS = "dev-openings.parquet"
TRAIN_OPENINGS = "train-openings.parquet"
NATURAL_PREFERENCES = "natural-preferences.parquet"
NUM_TURNS = 4
"""Turns of the rollouts, and of the pairs that have D_MUSIC's place where no rollout is made."""


def write_world(folder: Path, scale: Scale) -> None:
    """Writes what is not there yet; every file is a function of the scale and of this code."""
    folder.mkdir(parents=True, exist_ok=True)
    make(folder / PREFERENCES, lambda: preference_rows(scale.preferences))
    # A0 has as many pairs of as many turns as the others, all of which differ in the final reply alone.
    more = [(NUM_TURNS, NUM_TURNS)]
    make(folder / MORE, lambda: preference_rows(scale.music, run=1, cells=more)[: scale.music])
    if "S2" in scale.suites:
        make(folder / OPENINGS, lambda: opening_rows("S2", scale.samples))
    if scale.preference_samples:
        make(folder / TRAIN_OPENINGS, lambda: opening_rows("prompts", scale.preference_samples))
    if scale.dev_samples:
        make(folder / DEV_OPENINGS, lambda: opening_rows("dev", scale.dev_samples))
    for suite in scale.suites:
        if suite != "S2":
            make(suite_file(folder, suite), lambda suite=suite: suite_rows(suite, scale.suite_pairs))  # type: ignore[misc]


def suite_file(folder: Path, suite: str) -> Path:
    """Where a suite lies."""
    return folder / f"{suite}.parquet"


def suite_rows(suite: str, num_pairs: int) -> list[dict[str, Any]]:
    """Rows of every suite but S2."""
    return [pair.row() for pair in build(suite, num_pairs)]


def opening_rows(part: str, count: int) -> list[dict[str, Any]]:
    """Preference pairs of one turn with different first messages, for the seeds stage to take these from."""
    split = split_of_part(part)
    rows: dict[str, dict[str, Any]] = {}
    for seed in seeds(part):
        if len(rows) == count:
            break
        messages = conversation(seed, 1, split=split)
        modified = modify_instruction(messages, 1, random.Random(f"opening {seed}"))
        if modified is not None:
            row = {"id": f"{part}-{seed}", "source": part, "chosen": messages}
            rows.setdefault(messages[0]["content"], row | {"rejected": spoil(messages, 1, modified.reply)})
    return list(rows.values())


def make(path: Path, rows: Callable[[], Iterable[dict[str, Any]]]) -> Path:
    """The file of rows; it is made only if it is not there, and never half."""
    if not path.exists():
        partial = path.with_name(f".partial-{path.name}")
        count = write_rows(rows(), partial)
        partial.rename(path)
        say(f"{path.name}: {count} rows")
    return path
