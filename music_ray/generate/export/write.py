"""`music-ray export`: the accepted pairs as a folder that datasets and TRL load.

Reads pairs/ (and the lengths of the seeds' contexts), writes one folder, all of it or nothing. It does not
know the rollouts, the models or the hub.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import pyarrow.fs as pafs

from music_ray.errors import InputError, StageError
from music_ray.generate.export.card import export_card
from music_ray.generate.export.contexts import context_lengths
from music_ray.generate.export.formats import (
    SCHEMA_NAME,
    ContextLength,
    Format,
    NotExportable,
    Side,
    dpo_row,
    schema_of,
    sft_row,
)
from music_ray.generate.staging import PartWriter, StagedFolder
from music_ray.progress import say
from music_ray.rundir import RunDir, open_filesystem
from music_ray.storage import entries

FOLDER = "export"
"""Where exported folders lie in the run folder."""
OWNED = ("train-*.parquet", "README.md")


@dataclass
class Exported:
    """What became of the pairs."""

    num_pairs: int = 0
    num_rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    unknown_contexts: int = 0
    example: dict[str, Any] | None = None


def run_export(run: RunDir, format: Format, out: str | None = None, side: Side = "chosen") -> Exported:
    """Writes the folder and says what is in it.

    Args:
        out: a local path or URI; below RUN/export when None. What it held of an earlier export is replaced.
        side: sft: whose conversations are written.

    Raises:
        StageError: there are no pairs.
        InputError: `out` holds something else, or a file of a newer music_ray was met.
    """
    if format == "dpo" and side != "chosen":
        raise InputError("--branch rejected is for --format sft: dpo holds both sides, leave --branch out")
    check_pairs(run)
    place, name = _target(run, out, format, side)
    shown = out or run.display(FOLDER, name)
    _check_target(place, name, format, shown)
    schema = schema_of(format, pairs_digest(run))
    lengths = context_lengths(run) if format == "sft" else None
    num_rows = sum(1 for _ in _rows(run, format, side, lengths, Exported()))
    done = Exported()
    with StagedFolder(place, name, OWNED) as folder:
        writer = PartWriter(folder, schema, num_rows=num_rows)
        for row in _rows(run, format, side, lengths, done):
            writer.add(row)
        writer.close()
        folder.write_text(
            export_card(run, format, side, done.num_rows, done.sources, done.example), "README.md"
        )
        folder.publish()
    _tell(run, done, shown)
    return done


def check_pairs(run: RunDir) -> None:
    """Refuses a run that has no complete set of pairs.

    Raises:
        StageError: the pairs stage has not come to its end, or its files are gone.
    """
    record = run.manifest()["stages"].get("pairs", {})
    if record.get("status") != "done" or not run.parquet_files("pairs"):
        raise StageError(
            f"no finished pairs in {run.display('pairs')}: run `music-ray pairs` or `music-ray run` with the "
            "run's configuration first"
        )


def pairs_digest(run: RunDir) -> str:
    """What the pairs stage wrote, as the manifest knows it."""
    return str(run.manifest()["stages"]["pairs"].get("output", ""))


def default_name(format: Format, side: Side = "chosen") -> str:
    """The folder's name below RUN/export."""
    return format if side == "chosen" else f"{format}-{side}"


def _target(run: RunDir, out: str | None, format: Format, side: Side) -> tuple[RunDir, str]:
    """The folder above the exported one, in the guise of a run folder, and the exported one's name."""
    place = copy.copy(run)
    if out is None:
        place.root = run.path(FOLDER)
        return place, default_name(format, side)
    place.fs, path = open_filesystem(out)
    place.is_local = isinstance(place.fs, pafs.LocalFileSystem)
    place.root, _, name = path.rstrip("/").rpartition("/")
    if not name or not place.root:
        raise InputError(f"--out {out} names no folder of its own: name one below it")
    return place, name


def _check_target(place: RunDir, name: str, format: Format, shown: str) -> None:
    """Only an earlier export of the same format is replaced."""
    remedy = "name a new or empty folder with --out"
    info = place.fs.get_file_info(place.path(name))
    if info.type == pafs.FileType.NotFound:
        return
    if info.type == pafs.FileType.File:
        raise InputError(f"{shown} is a file: {remedy}")
    inside = entries(place.fs, place.path(name))
    names = sorted(one.base_name for one in inside if not one.base_name.startswith("."))
    data = [path for path in place.parquet_files(name) if fnmatch(path, f"*/{name}/train-*.parquet")]
    if names and not data:
        raise InputError(f"{shown} holds {names[0]}, which is of no export: {remedy}")
    for path in data:
        with place.open_parquet(path) as file:
            kind = (file.schema_arrow.metadata or {}).get(SCHEMA_NAME, b"").decode()
        if kind != format:
            raise InputError(
                f"{path} holds rows of another kind ({kind or 'unknown'}), and an export as {format} would "
                f"replace it: {remedy}"
            )


def _rows(
    run: RunDir, format: Format, side: Side, lengths: ContextLength | None, done: Exported
) -> Iterator[dict[str, Any]]:
    for pair in run.read_rows("pairs"):
        done.num_pairs += 1
        try:
            row = dpo_row(pair) if lengths is None else sft_row(pair, side, lengths)
        except NotExportable as reason:
            done.left_out[str(reason)] += 1
            continue
        done.num_rows += 1
        done.sources[row["source"]] += 1
        done.unknown_contexts += format == "sft" and row["num_context_messages"] is None
        done.example = done.example or row
        yield row


def _tell(run: RunDir, done: Exported, shown: str) -> None:
    say(f"export: {done.num_rows} rows of {done.num_pairs} pairs in {shown}")
    if done.left_out:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(done.left_out.items()))
        say(f"export: {sum(done.left_out.values())} pairs have no row: {reasons}")
    if done.unknown_contexts:
        say(
            f"export: num_context_messages is empty in {done.unknown_contexts} rows: seeds/contexts does not "
            "hold their seeds any more"
        )
    if not run.is_finished("pairs"):
        say(
            "export: pairs/ is out of date (configuration, seeds, rollouts or pairs/excluded.txt changed): "
            "`music-ray pairs` makes it anew, then export again"
        )
    say(f'load it with datasets.load_dataset("parquet", data_dir="{shown}")')
