"""A model's folder by what it holds: the files that decide what it computes, and a digest of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from music_ray.rundir import digest

DECIDE = (".json", ".jinja", ".model", ".safetensors", ".txt")
"""Suffixes of the files that decide what a model computes."""


def deciding_files(folder: Path) -> list[Path]:
    """Weights, configuration and tokenizer, in the order of their names."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in DECIDE and not path.name.startswith(".")
    ]


def folder_digest(folder: Path) -> str:
    """A digest of those files by name and content; every byte of them is read."""
    return digest({path.name: _sha256(path) for path in deciding_files(folder)})


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
