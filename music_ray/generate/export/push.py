"""`music-ray push`: a finished folder of a run, with its card, on the Hugging Face hub.

Decides what goes and whether it may go; upload.py talks to the hub. Nothing of a run but the named files
ever leaves it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import pyarrow.fs as pafs

from music_ray.errors import InputError, StageError
from music_ray.generate.card_sections import with_licences
from music_ray.generate.export import upload
from music_ray.generate.export.card import UNIT, run_licences
from music_ray.generate.export.formats import PAIRS_DIGEST
from music_ray.generate.export.write import FOLDER, OWNED, pairs_digest
from music_ray.progress import say
from music_ray.rundir import RunDir
from music_ray.storage import fetch

What = Literal["pairs", "sft", "dpo", "model"]
_CARD = "README.md"
_MODEL_FILES = (_CARD, "*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True)
class _Kind:
    """Where one kind of result lies, and what of it goes."""

    folder: tuple[str, ...]
    stage: str
    """The stage that must be finished."""
    patterns: tuple[str, ...]
    repo: upload.RepoKind
    remedy: str


_KINDS: dict[What, _Kind] = {
    "pairs": _Kind(("pairs",), "pairs", OWNED, "dataset", "music-ray pairs"),
    "sft": _Kind((FOLDER, "sft"), "pairs", OWNED, "dataset", "music-ray export RUN --format sft"),
    "dpo": _Kind((FOLDER, "dpo"), "pairs", OWNED, "dataset", "music-ray export RUN --format dpo"),
    "model": _Kind(("model",), "train", _MODEL_FILES, "model", "music-ray train"),
}


def run_push(
    run: RunDir,
    repo: str,
    what: What = "pairs",
    *,
    public: bool = False,
    licence_checked: bool = False,
    dry_run: bool = False,
) -> None:
    """Uploads a folder in one commit and says where it went.

    Args:
        repo: OWNER/NAME; made when it does not exist.
        public: whether anybody may read it.
        licence_checked: the user has looked at licences that the run does not know.
        dry_run: only say what would go; neither a token nor the network is needed.

    Raises:
        StageError: there is nothing finished to push, or the hub can't be reached.
        InputError: an unknown licence would be made public, HF_TOKEN is missing, or the hub refuses.
    """
    kind = _KINDS[what]
    upload.check_repo(repo)
    sizes = _files(run, kind)
    sources = _sources(run, kind)
    if public and not licence_checked:
        _check_licences(run, sources)
    where = f"{upload.repo_url(repo, kind.repo)} ({'public' if public else 'private'})"
    if dry_run:
        for name, size in sizes.items():
            say(f"{_size(size):>10}  {name}")
        say(f"push: {len(sizes)} files, {_size(sum(sizes.values()))} would go to {where}; nothing was sent")
        return
    token = upload.read_token()
    say(f"push: {len(sizes)} files, {_size(sum(sizes.values()))} to {where}")
    with tempfile.TemporaryDirectory(prefix="music_ray-push-") as scratch:
        files = _contents(run, kind, list(sizes), Path(scratch))
        if kind.repo == "dataset":
            unit = "Pairs" if what == "pairs" else UNIT
            card = run.read_text(*kind.folder, _CARD)
            files[_CARD] = with_licences(card, sources, run_licences(run), unit).encode("utf-8")
        url = upload.commit(
            repo,
            kind.repo,
            files,
            owned=kind.patterns,
            public=public,
            token=token,
            message=f"{what} of the run {run.config.name} (music_ray)",
        )
    say(f"push: done, {url}")


def _files(run: RunDir, kind: _Kind) -> dict[str, int]:
    """Names and sizes in bytes of what goes, the card first.

    Raises:
        StageError: the folder is missing, incomplete, or made from other pairs than the run's.
    """
    shown = run.display(*kind.folder)
    selector = pafs.FileSelector(run.path(*kind.folder), allow_not_found=True)
    found = {
        info.base_name: info.size
        for info in run.fs.get_file_info(selector)
        if info.type == pafs.FileType.File and any(fnmatch(info.base_name, one) for one in kind.patterns)
    }
    if _CARD not in found or len(found) == 1:
        raise StageError(f"nothing to push in {shown}: make it with `{kind.remedy}` first")
    if not run.is_finished(kind.stage):
        raise StageError(
            f"{shown} does not fit the run's configuration and input any more: bring the run to its end with "
            f"`music-ray run`, then `{kind.remedy}`"
        )
    if kind.folder[0] == FOLDER:
        _check_made_from(run, kind)
    return {name: found[name] for name in sorted(found, key=lambda name: (name != _CARD, name))}


def _check_made_from(run: RunDir, kind: _Kind) -> None:
    for path in run.parquet_files(*kind.folder):
        with run.open_parquet(path) as file:
            made_from = (file.schema_arrow.metadata or {}).get(PAIRS_DIGEST, b"").decode()
        if made_from != pairs_digest(run):
            raise StageError(
                f"{run.display(*kind.folder)} was made from other pairs than {run.display('pairs')} holds: "
                f"run `{kind.remedy}` again"
            )


def _sources(run: RunDir, kind: _Kind) -> Counter[str]:
    """Rows by source: of the folder's own rows, or for a model all that D has."""
    if kind.repo == "model":
        return Counter(dict.fromkeys(run_licences(run).by_source, 1))
    sources = Counter(row["source"] for row in run.read_rows(*kind.folder, columns=["source"]))
    if not sources:
        raise StageError(f"{run.display(*kind.folder)} holds no rows: there is nothing to push")
    return sources


def _check_licences(run: RunDir, sources: Counter[str]) -> None:
    unknown = run_licences(run).unknown(sources)
    if unknown or not sources:
        named = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise InputError(
            f"nobody has named the licence of {len(unknown)} sources ({named}): set `licence` in "
            "data.sources and run `music-ray pairs` once more (nothing is made again), or say "
            "--licence-checked if you know that this may be public"
        )


def _contents(run: RunDir, kind: _Kind, names: list[str], scratch: Path) -> dict[str, Path | bytes]:
    """The files as local ones; those of an object store are fetched first."""
    if run.is_local:
        return {name: Path(run.path(*kind.folder, name)) for name in names}
    for name in names:
        fetch(run.fs, run.path(*kind.folder, name), scratch / name)
    return {name: scratch / name for name in names}


def _size(num_bytes: int) -> str:
    """Bytes as a person reads them."""
    size = float(num_bytes)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
