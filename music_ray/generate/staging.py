"""Writing a stage's files aside and moving them into place together, so that no half set is ever read.

Knows files and folders, not what is in them.
"""

from __future__ import annotations

from fnmatch import fnmatch
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from music_ray.rundir import RunDir

ROWS_PER_FILE = 5_000
_ROWS_PER_CHUNK = 500


class StagedFolder:
    """A folder of the run whose new files lie beside it until they are complete.

    Use as a context manager; what was not published when it ends is removed.

    Args:
        folder: the folder's name in the run folder, e.g. 'pairs'.
        owned: patterns (fnmatch, below the folder) of the files that the stage owns: `publish` removes
            those of them that it did not write. Other files are left alone.
    """

    def __init__(self, run: RunDir, folder: str, owned: tuple[str, ...]) -> None:
        self.run, self.folder, self.owned = run, folder, owned
        self.aside = f".{folder}-new"

    def __enter__(self) -> StagedFolder:
        self.run.clear(self.aside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.clear(self.aside)

    def write_table(self, table: pa.Table, *parts: str) -> None:
        """Writes one Parquet file of the new set."""
        self.run.write_table(table, self.aside, *parts)

    def write_text(self, text: str, *parts: str) -> None:
        """Writes one text file of the new set."""
        self.run.write_text(text, self.aside, *parts)

    def publish(self) -> None:
        """Moves the new files into place (each replaces its namesake at once), then removes old ones.

        A crash in between leaves the stage marked as running in the manifest, and it is run again.
        """
        new = self._files(self.aside)
        for name in new:
            target = self.run.path(self.folder, name)
            if self.run.is_local:  # Object stores have no folders, only keys.
                self.run.fs.create_dir(target.rpartition("/")[0], recursive=True)
            self.run.fs.move(self.run.path(self.aside, name), target)
        for name in set(self._files(self.folder)) - set(new):
            if any(fnmatch(name, pattern) for pattern in self.owned):
                self.run.fs.delete_file(self.run.path(self.folder, name))

    def _files(self, folder: str) -> list[str]:
        root = self.run.path(folder)
        selector = pafs.FileSelector(root, recursive=True, allow_not_found=True)
        infos = self.run.fs.get_file_info(selector)
        return sorted(info.path[len(root) :].lstrip("/") for info in infos if info.type == pafs.FileType.File)


class PartWriter:
    """Writes rows that come one by one as Parquet files of at most ROWS_PER_FILE rows.

    Args:
        parts: the folder below the staged one.
        num_rows: how many rows will come, if that is known: the files are then called
            train-00000-of-00003.parquet, otherwise part-00000.parquet.
        single: the name of the only file, however many rows come.
    """

    def __init__(
        self,
        folder: StagedFolder,
        schema: pa.Schema,
        *parts: str,
        num_rows: int | None = None,
        single: str = "",
    ) -> None:
        self.folder, self.schema, self.parts, self.single = folder, schema, parts, single
        self.num_files = None if num_rows is None else max(1, -(-num_rows // ROWS_PER_FILE))
        self.num_rows = 0
        self._rows: list[dict[str, Any]] = []
        # Rows wait as Arrow tables: a tenth of the memory of Python objects.
        self._chunks: list[pa.Table] = []
        self._index = 0

    def add(self, row: dict[str, Any]) -> None:
        """Takes one row; it is on disk after `close` at the latest."""
        self._rows.append(row)
        self.num_rows += 1
        if len(self._rows) == _ROWS_PER_CHUNK:
            self._seal()
        if self.num_rows % ROWS_PER_FILE == 0 and not self.single:
            self._write()

    def close(self) -> None:
        """Writes what is left; without any row an empty file, so that readers find the schema."""
        self._seal()
        if self._chunks or not self._index:
            self._write()

    def _seal(self) -> None:
        if self._rows:
            self._chunks.append(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows = []

    def _write(self) -> None:
        self._seal()
        table = pa.concat_tables(self._chunks) if self._chunks else self.schema.empty_table()
        self.folder.write_table(table, *self.parts, self._name())
        self._chunks = []
        self._index += 1

    def _name(self) -> str:
        if self.single:
            return self.single
        if self.num_files is not None:
            return f"train-{self._index:05d}-of-{self.num_files:05d}.parquet"
        return f"part-{self._index:05d}.parquet"
