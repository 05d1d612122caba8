"""The copy of the working directory that goes with a job: which files, and the archive of them.

music_ray makes the archive itself, so that what was checked is what is sent, and what is sent again when a
job was lost. What git ignores stays here, as with Ray's own --working-dir (.gitignore and .rayignore of every
folder, read by Ray's functions), and so does EXCLUDES.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from music_ray.errors import InputError

EXCLUDES = (
    *(".git", ".venv", "venv", "__pycache__", "*.egg-info", "node_modules"),
    *(".cache", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    *("/runs", "/evaluations", "/wandb"),
    *(".env", ".env.*", ".envrc", ".netrc", "/.aws"),
)
"""Never sent, in the words of .gitignore, whether or not a .gitignore names it: other machines' packages,
caches, results, and files that hold secrets by custom."""
_MIB = 2**20
_NAMED = 3
"""So many of the largest files are named when there is too much."""

Match = Callable[[Path], bool]


@dataclass(frozen=True)
class Package:
    """The files of one working directory that are sent."""

    folder: Path
    files: tuple[str, ...]
    """Paths inside the folder, with '/', in order."""
    excludes: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Whether a file is among them, or anything of a folder; the path is relative to the folder."""
        wanted = path.strip("/")
        return wanted in self.files or any(name.startswith(f"{wanted}/") for name in self.files)

    def write(self, target: Path, bound: int) -> int:
        """Writes the archive; the same files give the same bytes, so that Ray keeps one copy of them.

        Returns:
            its size in bytes.

        Raises:
            InputError: it is over the bound, or a file can't be read.
        """
        with target.open("wb") as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in self.files:
                path = self.folder / name
                entry = zipfile.ZipInfo(name)  # dated 1980: a new checkout is no new content
                entry.compress_type = zipfile.ZIP_DEFLATED
                try:
                    facts = path.stat()
                    entry.external_attr, entry.file_size = (facts.st_mode & 0o777) << 16, facts.st_size
                    with path.open("rb") as content, archive.open(entry, "w") as packed:
                        while part := content.read(_MIB):
                            packed.write(part)
                            if handle.tell() >= bound:
                                raise InputError(self._too_large(bound))
                except OSError as error:
                    raise InputError(
                        f"{path} can't be sent ({error.strerror}): name it in .rayignore if the job does not "
                        "need it"
                    ) from None
        return target.stat().st_size

    def _too_large(self, bound: int) -> str:
        sizes = sorted(((self.folder / name).stat().st_size, name) for name in self.files)
        largest = ", ".join(f"{name} ({size / _MIB:.1f} MiB)" for size, name in sizes[: -_NAMED - 1 : -1])
        total = sum(size for size, _ in sizes)
        return (
            f"the working directory {self.folder} is too large to be sent with a job: its {len(sizes)} files "
            f"hold {total / _MIB:.1f} MiB, and do not pack into the {bound / _MIB:.0f} MiB that Ray takes. "
            f"The largest are {largest}: name what the job does not need in .rayignore, and put data and "
            "models on storage that the nodes see"
        )


def find_package(folder: Path, more_excludes: Sequence[str] = ()) -> Package:
    """The files below a folder that are sent.

    Args:
        folder: the working directory, absolute.
        more_excludes: besides EXCLUDES, in the words of .gitignore.
    """
    from ray._private.runtime_env.packaging import _get_excludes

    excludes = (*EXCLUDES, *more_excludes)
    found = _walk(folder, [_get_excludes(folder, list(excludes))])
    names = (path.relative_to(folder).as_posix() for path in found)
    return Package(folder, tuple(sorted(names)), excludes)


def size_bound() -> int:
    """The most bytes that Ray's job server takes: what its dashboard accepts, and what its store holds."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    return int(min(DASHBOARD_CLIENT_MAX_SIZE, GCS_STORAGE_MAX_SIZE))


def _walk(folder: Path, refused: list[Match]) -> Iterator[Path]:
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    quiet = logging.getLogger(__name__)
    refused = [*refused, *get_excludes_from_ignore_files(folder, include_gitignore=True, logger=quiet)]
    for path in folder.iterdir():
        if any(refuses(path) for refuses in refused):
            continue
        if path.is_dir():
            if not (path.is_symlink() and path.resolve() in (folder.resolve(), *folder.resolve().parents)):
                yield from _walk(path, refused)
        elif path.is_file():
            yield path
