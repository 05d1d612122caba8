"""The run folder: what lies where, the manifest, atomic writes, and which stages are finished.

Local paths and pyarrow filesystem URIs look the same from above. This module knows names and
fingerprints; it does not know what a stage does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from music_ray import schema
from music_ray.config import RunConfig
from music_ray.config.load import dump_config
from music_ray.errors import InputError, RunFolderError
from music_ray.identity import identity_difference, identity_of, same_keys, same_reads, stage_keys
from music_ray.prompts import prompt_hash
from music_ray.provenance import git_commit, versions
from music_ray.run_lock import StoreLease, lock_file
from music_ray.storage import below, delete_folder, is_of_store, move_folder, open_input, put, with_retries

STAGES = ("seeds", "generate", "pairs", "mix", "train", "evaluate", "report")
FOLDERS = {
    "seeds": "seeds",
    "generate": "rollouts",
    "pairs": "pairs",
    "mix": "mix",
    "train": "model",
    "evaluate": "evals",
    "report": "report",
}
EXCLUDED = ("pairs", "excluded.txt")
MANIFEST_VERSION = 1


class RunDir:
    """One run's folder, opened for one configuration."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.fs, self.root = open_filesystem(below(config.runs_dir, config.name))
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)

    # -- paths and files ---------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        """A path inside the folder, as self.fs understands it."""
        return "/".join((self.root, *parts))

    def display(self, *parts: str) -> str:
        """A path inside the folder, as the user would type it."""
        return below(self.config.runs_dir, self.config.name, *parts)

    def exists(self, *parts: str) -> bool:
        """Whether a file or folder is there."""
        return self.fs.get_file_info(self.path(*parts)).type != pafs.FileType.NotFound

    def parquet_files(self, *parts: str) -> list[str]:
        """The finished Parquet files below a folder, sorted; temporary files are not data."""
        selector = pafs.FileSelector(self.path(*parts), recursive=True, allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return sorted(
            info.path
            for info in infos
            if info.type == pafs.FileType.File
            and info.base_name.endswith(".parquet")
            and not info.base_name.startswith((".", "_"))
        )

    def read_rows(self, *parts: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """Rows of all Parquet files below a folder, a record batch at a time in memory."""
        for path in self.parquet_files(*parts):
            with self.open_parquet(path) as file:
                for batch in file.iter_batches(batch_size=1024, columns=columns):
                    yield from batch.to_pylist()

    def read_ids(self, *parts: str) -> np.ndarray:
        """The int64 column `id` of all Parquet files below a folder, in their order; nothing else is read."""
        found = []
        for path in self.parquet_files(*parts):
            with self.open_parquet(path) as file:
                found.append(file.read(columns=["id"])["id"].to_numpy())
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    @contextlib.contextmanager
    def open_parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """A Parquet file of this folder whose version this program understands.

        Raises:
            InputError: the file is damaged, or was written by a newer music_ray.
        """
        with open_input(self.fs, path) as handle:
            try:
                file = pq.ParquetFile(handle)
            except (pa.ArrowInvalid, OSError) as error:
                if is_of_store(error):
                    raise
                reason = " ".join(str(error).split())
                raise InputError(
                    f"{path} is not a readable Parquet file ({reason}): remove it and run the stage again"
                ) from None
            schema.check_version(file.schema_arrow, path)
            yield file

    def write_table(self, table: pa.Table, *parts: str) -> str:
        """Writes one Parquet file so that a reader sees all of it or nothing."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return self.write_bytes(sink.getvalue(), *parts)

    def write_text(self, text: str, *parts: str) -> str:
        """Writes one UTF-8 text file atomically."""
        return self.write_bytes(text.encode("utf-8"), *parts)

    def write_bytes(self, content: bytes | pa.Buffer, *parts: str) -> str:
        """Local: temporary file, fsync, rename. Object store: one PUT, which is atomic there."""
        path = self.path(*parts)
        if not self.is_local:
            put(self.fs, path, content)
            return path
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)  # On a full disk it would hold what is left.
            raise
        return path

    def read_text(self, *parts: str) -> str:
        """A UTF-8 text file of this folder."""
        return self.read_bytes(*parts).decode("utf-8")

    def read_bytes(self, *parts: str) -> bytes:
        """A file of this folder."""
        with open_input(self.fs, self.path(*parts)) as handle:
            return handle.read()

    def clear(self, *parts: str) -> None:
        """Removes a subfolder with all it holds, if it is there."""
        if self.exists(*parts):
            delete_folder(self.fs, self.path(*parts))

    def set_aside(self, name: str, tag: str) -> str | None:
        """Renames a subfolder to `name-tag` (`name-tag-2`, …), so that nothing paid for is overwritten."""
        if not self.exists(name):
            return None
        target, number = f"{name}-{tag}", 1
        while self.exists(target):
            number += 1
            target = f"{name}-{tag}-{number}"
        if self.is_local:
            self.fs.move(self.path(name), self.path(target))
        else:
            move_folder(self.fs, self.path(name), self.path(target))
        return self.display(target)

    # -- the manifest ------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any]:
        """manifest.json, or an empty one.

        Raises:
            RunFolderError: it is damaged, or was written by a newer music_ray.
        """
        if not self.exists("manifest.json"):
            return {"stages": {}}
        try:
            manifest = json.loads(self.read_text("manifest.json"))
            if not isinstance(manifest["stages"], dict):
                raise TypeError("stages is no table")
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{self.display('manifest.json')} is damaged ({error}): restore it, or use another name"
            ) from None
        if (version := manifest.get("manifest_version", 0)) > MANIFEST_VERSION:
            raise RunFolderError(
                f"{self.display('manifest.json')} has version {version}, but this music_ray reads up to "
                f"{MANIFEST_VERSION}: upgrade music_ray"
            )
        return manifest

    def check_identity(self) -> None:
        """Checks that what the folder holds was made with the same identity keys; writes nothing.

        Raises:
            RunFolderError: an identity key differs (it is named with both values).
        """
        before = self.manifest().get("identity")
        if before is None or not self.exists(FOLDERS["generate"]):
            return  # nothing that was paid for yet: a mistake in the first command may be corrected
        # A key that an older music_ray did not know had what is its default now.
        defaults = identity_of(RunConfig(name=self.config.name))
        now = identity_of(self.config)
        if not same_keys(before, now, defaults):
            raise RunFolderError(identity_difference(defaults | before, defaults | now, self.display()))

    def check_prompts(self) -> None:
        """Refuses to add rollouts made with other prompts; what only reads the old ones goes on.

        Raises:
            RunFolderError: the prompt templates have changed since the folder was made.
        """
        before = self.manifest().get("prompt_hash", prompt_hash())
        if before != prompt_hash():
            raise RunFolderError(
                f"{self.display()} was made with the prompts {before}, this music_ray has {prompt_hash()}: "
                "go on with the version that made it, or give this run another name"
            )

    def open(self) -> None:
        """Creates the folder, or checks that what it holds was made with the same identity keys.

        Raises:
            RunFolderError: an identity key differs (it is named with both values).
        """
        self.check_identity()
        manifest = self.manifest()
        manifest |= {
            "manifest_version": MANIFEST_VERSION,
            "name": self.config.name,
            "identity": identity_of(self.config),
            "versions": versions(),
            "git_commit": git_commit(),
        }
        manifest.setdefault("created", _now())
        if not self.exists(FOLDERS["generate"]):
            manifest["prompt_hash"] = prompt_hash()
        self._write_manifest(manifest)
        self.write_text(dump_config(self.config), "config.yaml")

    def fingerprint(self, stage: str) -> str:
        """Hash of all that the stage's result depends on: its own keys and what it reads."""
        return digest(self.made_from(stage))

    def made_from(self, stage: str) -> dict[str, Any]:
        """All that the stage's result depends on: `keys` of the configuration and what it `reads`."""
        if stage not in STAGES:  # setup: preparing models depends on nothing in the folder
            return {}
        stages = self.manifest()["stages"]
        reads = {name: stages.get(name, {}).get("output", "") for name in STAGES[: STAGES.index(stage)]}
        if stage == "pairs" and self.exists(*EXCLUDED):
            reads["excluded"] = hashlib.sha256(self.read_bytes(*EXCLUDED)).hexdigest()
        if stage == "pairs":
            from music_ray.gate_inputs import gate_inputs  # which opens files through this module

            reads |= gate_inputs(self.config.pairs.gates)
        return {"keys": stage_keys(self.config, stage), "reads": reads}

    def is_made_from_this(self, stage: str, made_from: dict[str, Any] | None) -> bool:
        """Whether a record's `made_from` is what the stage would be made from now."""
        now = self.made_from(stage)
        if not made_from or not now:
            return made_from == now
        defaults = stage_keys(RunConfig(name=self.config.name), stage)
        return same_reads(made_from["reads"], now["reads"]) and same_keys(
            made_from["keys"], now["keys"], defaults
        )

    def is_finished(self, stage: str) -> bool:
        """Whether the stage's result is there and made from the present configuration and input."""
        record = self.manifest()["stages"].get(stage, {})
        return (
            record.get("status") == "done"
            and self.is_made_from_this(stage, record.get("made_from"))
            and self.exists(FOLDERS[stage])  # else somebody removed it
            and not (stage == "generate" and self._has_errors_to_retry(record))
        )

    def _has_errors_to_retry(self, record: dict[str, Any]) -> bool:
        return self.config.generate.retry_errors and bool(record.get("counts", {}).get("errors"))

    def start_stage(self, stage: str) -> dict[str, Any]:
        """Marks a stage as running and returns its former record (empty when it never ran)."""
        manifest = self.manifest()
        before = manifest["stages"].get(stage, {})
        manifest["stages"][stage] = {
            **before,
            "status": "running",
            "started": _now(),
            "running_from": self.made_from(stage),
            "starts": before.get("starts", 0) + 1,
        }
        self._write_manifest(manifest)
        return before

    def finish_stage(self, stage: str, output: str, seconds: float, **facts: Any) -> None:
        """Marks a stage as done.

        Args:
            output: a digest of what the stage wrote; the stages after it rerun when it changes.
            seconds: wall time of this start of the stage.
            facts: counts, tokens and whatever else the report shows, as JSON values.
        """
        manifest = self.manifest()
        record = manifest["stages"].get(stage, {})
        manifest["stages"][stage] = {
            "status": "done",
            "started": record.get("started"),
            "finished": _now(),
            "starts": record.get("starts", 1),
            # Of its start: what changed since then, such as an id marked as excluded, is not in the result.
            "made_from": record.get("running_from") or self.made_from(stage),
            "output": output,
            "seconds": round(seconds, 3),
            "total_seconds": round(record.get("total_seconds", 0.0) + seconds, 3),
            **facts,
        }
        self._write_manifest(manifest)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Adds the time of a start that did not reach the stage's end."""
        manifest = self.manifest()
        record = manifest["stages"].setdefault(stage, {})
        record["total_seconds"] = round(record.get("total_seconds", 0.0) + seconds, 3)
        self._write_manifest(manifest)

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Records something about the run beside its stages, such as what the canary showed."""
        manifest = self.manifest()
        manifest[name] = facts
        self._write_manifest(manifest)

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        self.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "manifest.json")

    # -- one driver at a time ----------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            RunFolderError: another process holds it.
            TransientError: another driver holds it on an object store, and may be dead.
        """
        if self.is_local:
            with lock_file(Path(self.path(".lock")), self.display()):
                yield
        else:
            with StoreLease(self.fs, self.path("lock.json"), self.display()):
                yield


def open_filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a local path or URI, and the path inside it.

    Raises:
        InputError: the URI's scheme is unknown or the store can't be reached.
    """
    if "://" not in location:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(location))
    try:
        fs, path = pafs.FileSystem.from_uri(location)
        return with_retries(fs), path
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"cannot open {location}: {error}") from None


def digest(value: Any) -> str:
    """16 hexadecimal digits of a hash over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digest_ids(ids: list[Any]) -> str:
    """A digest of a set of ids, in any order."""
    return digest(sorted(str(one) for one in ids))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
