"""The audit of a run folder, or of a file or folder of preference pairs.

Reads pairs/ and seeds/preferences/train, writes audit/audit.json. It knows where pairs lie and takes a
sample of them into memory; it does not know what is measured.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from music_ray.config import AuditConfig, DataConfig, SourceConfig
from music_ray.errors import InputError, StageError
from music_ray.generate.audit.measure import audit_pairs, sample_key
from music_ray.generate.audit.result import Audit
from music_ray.generate.read_preferences import read_preferences
from music_ray.rundir import RunDir, open_filesystem
from music_ray.schema import PreferencePair, pair_from_row
from music_ray.storage import below

FILE = ("audit", "audit.json")
VERSION = 1
"""Of audit.json."""
_BATCH_ROWS = 256


def run_audit(run: RunDir) -> Audit:
    """Audits the accepted pairs, and D's training part beside them; writes audit/audit.json.

    Raises:
        InputError: there are no accepted pairs.
    """
    config, seed = run.config.audit, run.config.seed
    pairs, available = _sample(run, ("pairs",), config, seed)
    if not pairs:
        raise InputError(f"{run.display('pairs')} holds no pairs: run `music-ray pairs` first")
    found = audit_pairs(pairs, config, seed, num_available=available)
    del pairs  # before the other sample is read
    preferences, available = _sample(run, ("seeds", "preferences", "train"), config, seed)
    if preferences:
        found = replace(found, preferences=audit_pairs(preferences, config, seed, num_available=available))
    document = {"audit_version": VERSION, "pairs_output": pairs_output(run), **found.as_json()}
    run.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", *FILE)
    return found


def audit_path(location: str, config: AuditConfig, seed: int = 0) -> Audit:
    """Audits a file or folder of preference pairs of any shape that the seeds stage reads; writes nothing.

    Raises:
        InputError: nothing is there, or no row of it is a pair.
    """
    data = DataConfig(sources=_sources(location))
    available = 0

    def pairs() -> Iterator[PreferencePair]:
        nonlocal available
        for row in read_preferences(data):
            if isinstance(row, PreferencePair):
                available += 1
                yield row

    try:
        sample = heapq.nsmallest(config.max_pairs, pairs(), key=lambda pair: sample_key(seed, pair.id))
    except InputError as error:
        raise InputError(
            f"{location} is no run folder (it has no config.yaml), and no preference pairs: {error}"
        ) from None
    return replace(audit_pairs(sample, config, seed, num_available=available), origin="pairs")


def _sources(location: str) -> list[SourceConfig]:
    """A file or folder; of a folder with Parquet files, such as a run's pairs/, those alone."""
    fs, path = open_filesystem(location)
    selector = pafs.FileSelector(path, allow_not_found=True)
    if fs.get_file_info(path).type != pafs.FileType.Directory:
        return [SourceConfig(path=location)]
    names = sorted(info.base_name for info in fs.get_file_info(selector) if info.type == pafs.FileType.File)
    files = [name for name in names if name.endswith(".parquet") and not name.startswith((".", "_"))]
    return [SourceConfig(path=below(location, name)) for name in files or [""]]


def is_run_folder(location: str) -> bool:
    """Whether a path or URI names a run folder, or its configuration file."""
    if location.endswith((".yaml", ".yml")):
        return True
    fs, path = open_filesystem(location.rstrip("/") or location)
    try:
        return fs.get_file_info(f"{path}/config.yaml").type == pafs.FileType.File
    except OSError as error:
        raise InputError(f"cannot reach {location}: {error}") from None


def check_below(audit: Audit, bound: float) -> None:
    """Makes an audit a check.

    Raises:
        StageError: a view's AUC is above the bound, or there is no AUC to compare with it.
    """
    name = audit.highest
    view = audit.views[name] if name else None
    if view is None or view.auc is None:
        raise StageError(f"--fail-above {bound:g} can't be checked: {audit.verdict}")
    if view.auc > bound:
        raise StageError(
            f"{name} tells chosen from rejected with AUC {view.auc:.2f}, above --fail-above {bound:g}: see "
            "docs/explanation/shortcut-audit.md"
        )


def pairs_output(run: RunDir) -> str:
    """The digest of the accepted pairs that the manifest records: another one makes an audit out of date."""
    return str(run.manifest()["stages"].get("pairs", {}).get("output", ""))


def _sample(
    run: RunDir, parts: tuple[str, ...], config: AuditConfig, seed: int
) -> tuple[list[PreferencePair], int]:
    """The pairs that are looked at, and how many there are; only those are ever Python objects."""
    ids = [row["id"] for row in run.read_rows(*parts, columns=["id"])]
    taken = heapq.nsmallest(config.max_pairs, ids, key=lambda one: sample_key(seed, one))
    wanted = pa.array(taken, pa.string())
    pairs = []
    for path in run.parquet_files(*parts):
        with run.open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                mask = pc.is_in(batch.column("id"), value_set=wanted)
                pairs += [pair_from_row(row) for row in batch.filter(mask).to_pylist()]
    return pairs, len(ids)
