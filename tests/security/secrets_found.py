"""Where secrets stand: every file of a folder, Parquet files by their values and not by their bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq


def files_below(folder: Path) -> list[Path]:
    """All files, without links to others."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def telling(folder: Path, secrets: Iterable[str]) -> list[str]:
    """FILE: NAME for each file that holds a secret, by the start of the secret."""
    found = []
    for path in files_below(folder):
        content = _content(path)
        found += [f"{path.relative_to(folder)}: {one[:12]}…" for one in secrets if one.encode() in content]
    return found


def _content(path: Path) -> bytes:
    if path.suffix != ".parquet":
        return path.read_bytes()
    with pq.ParquetFile(path) as file:
        return f"{file.schema_arrow}\n{file.metadata.metadata}\n{file.read().to_pylist()}".encode(
            "utf-8", "surrogatepass"
        )
