"""Files on object stores and disks: what is tried again, and how a file is there whole or not at all.

Knows pyarrow's filesystems and their errors; it does not know what lies in a run folder.
"""

from __future__ import annotations

import datetime
import errno
import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from music_ray.errors import EnvironmentLacksError, InputError, MusicRayError, StageError, TransientError
from music_ray.progress import say

REQUEST_RETRIES = 10
"""How often a request to an S3-compatible store is made again after a server's error (5xx), a throttle or a
broken connection. The SDK waits 0, then 0.05, 0.1, 0.2, … 12.8 s before these: 25.6 s in all."""
ATTEMPTS = 6
"""How often what has cost money is written, a shard or a checkpoint: each time with all retries of its
requests, and 0.5 to 7.5 s in between. An S3-compatible store may be away for almost three minutes."""
RETRY_SECONDS = 60.0
"""For how long a request to Google's store is made again. Its SDK would try for 15 minutes."""
_PIECE_BYTES = 256 * 2**20
"""Of a large file so much is on its way at once: pyarrow copies all that it has not sent yet."""
ANSWER_SECONDS = 30.0
"""How long a request waits for a store that says nothing. The SDK's own 3 s are too few for a busy store, or
for one that copies a large object."""
_COPIED_BYTES = 2**30
"""No larger object is copied by the store itself: S3 refuses above 5 GiB, and is silent while it copies."""
_INTERRUPTED_SECONDS = 60.0
"""How long a writer that is interrupted waits for the file that is on its way."""
_WAITING_IS_USELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
# A full or failing disk is not a bug of ours. pyarrow's object stores raise OSError without a number.
_TROUBLE = (None, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOTCONN)
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "SIGNATURE_DOES_NOT_MATCH",
            "EXPIRED_TOKEN", "ExpiredToken", "HTTP status 401", "HTTP status 403",
            "Status(PERMISSION_DENIED", "Status(UNAUTHENTICATED")  # fmt: skip
_GOOGLE = "google::cloud::Status("
"""How every error of Google's SDK begins; the status follows."""
_INTO_A_BUCKET = ("function=CreateResumableUpload", "function=InsertObject")
"""Requests of Google's SDK that find nothing where there is no bucket, and need no object."""

STORE_ERRORS = (OSError, pa.ArrowException)
"""What a store raises. Of Google's, Arrow turns a status for which Python has no error (UNKNOWN, as of a
connection that breaks while keys are fetched) into one of its own (apache/arrow issue 35318)."""

Result = TypeVar("Result")


# -- places ----------------------------------------------------------------------------------------


def split_options(location: str) -> tuple[str, str]:
    """A place and the options of its URI: ('s3://bucket/runs', '?region=…'); a local path has none."""
    base, mark, options = location.partition("?") if "://" in location else (location, "", "")
    return base, mark + options


def below(location: str, *parts: str) -> str:
    """A place below a local path or URI; a URI's options (s3://…?region=…) stay at its end."""
    base, options = split_options(location)
    return "/".join((base.rstrip("/"), *parts)) + options


def parent_and_name(location: str) -> tuple[str, str]:
    """The folder that a place lies in, with the URI's options, and the place's own name."""
    base, options = split_options(location)
    parent, slash, name = base.rstrip("/").rpartition("/")
    return f"{parent or slash or '.'}{options}", name


# -- what is tried again ---------------------------------------------------------------------------


def with_retries(fs: pafs.FileSystem) -> pafs.FileSystem:
    """The same filesystem with a patience of ours, and on S3 with one PUT for a small file.

    Google's SDK is given RETRY_SECONDS, unless the URI has a retry_limit_seconds. On S3 pyarrow would open a
    multipart upload for every file: three requests, and what is left of it when the writer dies is stored,
    and paid for, until somebody aborts it.
    """
    if fs.type_name not in ("s3", "gcs"):
        return fs
    settings = fs.__reduce__()[1][0]
    if fs.type_name == "gcs":
        limit = settings["retry_time_limit"] or datetime.timedelta(seconds=RETRY_SECONDS)
        return pafs.GcsFileSystem(**settings | {"retry_time_limit": limit})
    retries = pafs.AwsDefaultS3RetryStrategy(max_attempts=REQUEST_RETRIES)
    ours = {"retry_strategy": retries, "request_timeout": ANSWER_SECONDS, "allow_delayed_open": True}
    return pafs.S3FileSystem(**settings | ours)


def patiently(write: Callable[[], object], what: str) -> None:
    """Calls `write` until it succeeds, ATTEMPTS times at most: for what has cost money and would be lost.

    Raises:
        OSError: that of the last attempt; of the first where waiting is useless, as on a full disk.
        pa.ArrowException: that of the last attempt, where Google's SDK could not say what was wrong.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            write()
            return
        except STORE_ERRORS as error:
            if attempt == ATTEMPTS or getattr(error, "errno", None) in _WAITING_IS_USELESS:
                raise
            say(f"{what}: attempt {attempt} of {ATTEMPTS} failed ({error}), trying again")
            time.sleep(min(2.0**attempt, 30.0) / 4)


def is_of_store(error: BaseException) -> bool:
    """Whether a store said so: what is wrong is the store, and not the file. A file that is not there is."""
    said = str(error)
    return "AWS Error" in said or (_GOOGLE in said and f"{_GOOGLE}NOT_FOUND" not in said)


def as_user_error(error: BaseException) -> MusicRayError:
    """What trouble with a disk or a store means for the user; its text names the file and the operation.

    Raises:
        BaseException: the error itself, where it is none of storage but a bug.
    """
    said = " ".join(str(error).split())
    no_bucket = f"{_GOOGLE}NOT_FOUND" in said and any(word in said for word in _INTO_A_BUCKET)
    if not no_bucket and not is_of_store(error) and getattr(error, "errno", -1) not in _TROUBLE:
        raise error
    if any(word in said for word in _REFUSED):
        return EnvironmentLacksError(
            f"{said}: the store refuses this process. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for "
            "gs:// GOOGLE_APPLICATION_CREDENTIALS), or give the machine a role, here and on all nodes, that "
            "may read, write, list and delete there"
        )
    if no_bucket or "NO_SUCH_BUCKET" in said or "NoSuchBucket" in said:
        return InputError(f"{said}: make the bucket first (music_ray makes none), or correct the URI")
    if is_of_store(error):
        return TransientError(
            f"{said}; {_tries(said)} have failed. All that is finished is kept: once "
            "the store answers, the same command goes on"
        )
    return StageError(f"{said}: see to the disk or the store, then the same command goes on")


def _tries(said: str) -> str:
    return "all tries" if _GOOGLE in said else f"{REQUEST_RETRIES + 1} tries"


# -- files, whole or not at all --------------------------------------------------------------------


def put(fs: pafs.FileSystem, path: str, content: bytes | pa.Buffer) -> None:
    """Writes an object; readers find the old one, or none, until all of it is there.

    Raises:
        OSError: the store did not take it.
    """
    try:
        _undisturbed(lambda: _send(fs, path, content))
    except OSError as error:
        # The answer to the end of an upload was lost, so the SDK ended it again: there is none any more.
        if "NO_SUCH_UPLOAD" not in str(error):
            raise
        _undisturbed(lambda: _send(fs, path, content))


def put_file(fs: pafs.FileSystem, path: str, local: str | Path) -> None:
    """Writes an object from a local file, as put; the file need not fit into memory.

    Raises:
        OSError: the file can't be read, or the store did not take it.
    """
    if not os.path.getsize(local):  # which can't be mapped
        return put(fs, path, b"")
    with pa.memory_map(str(local)) as mapped:
        return put(fs, path, mapped.read_buffer())


def fetch(fs: pafs.FileSystem, path: str, local: str | Path) -> None:
    """Copies an object, or all below a folder, to this machine; interrupted, a part of it lies there.

    Raises:
        OSError: it can't be read, or the disk is full.
    """
    here = pafs.LocalFileSystem()
    _again(lambda: pafs.copy_files(path, str(local), source_filesystem=fs, destination_filesystem=here))


def move_folder(fs: pafs.FileSystem, source: str, target: str) -> None:
    """Moves all below a folder file by file: object stores have keys, and no folders that could be renamed.

    Interrupted, all is still below `source`.

    Raises:
        OSError: a file could not be copied.
    """
    for info in fs.get_file_info(pafs.FileSelector(source, recursive=True)):
        copy = target + info.path.strip("/")[len(source.strip("/")) :]
        if info.type != pafs.FileType.File:
            continue
        if fs.type_name not in ("s3", "gcs"):  # where there are folders after all
            fs.create_dir(copy.rpartition("/")[0], recursive=True)
        if info.size > _COPIED_BYTES:
            _undisturbed(functools.partial(_copy_through, fs, info.path, copy))
        else:
            fs.copy_file(info.path, copy)
    delete_folder(fs, source)


def entries(fs: pafs.FileSystem, folder: str) -> list[pafs.FileInfo]:
    """The files and folders directly in a folder; none where it is not there.

    On Google's store Arrow lists no folder that has no object of its own, and music_ray makes none; so there
    all below it is listed, and the folders are read off the names.
    """
    if fs.type_name != "gcs":
        return fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    base = folder.rstrip("/")
    found: dict[str, pafs.FileInfo] = {}
    for info in fs.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True)):
        name, below_it, _ = info.path[len(base) + 1 :].partition("/")
        found[name] = pafs.FileInfo(f"{base}/{name}", pafs.FileType.Directory) if below_it else info
    return list(found.values())


def delete_folder(fs: pafs.FileSystem, path: str) -> None:
    """Removes a folder with all it holds.

    Raises:
        OSError: something of it is still there.
    """
    try:
        fs.delete_dir(path)
    except FileNotFoundError:
        # On Google's store Arrow removes what lies there and then an object that would stand for the folder
        # itself. Only its own create_dir makes one; without it Arrow fails when all is done.
        if fs.type_name != "gcs" or fs.get_file_info(path).type != pafs.FileType.NotFound:
            raise


def _copy_through(fs: pafs.FileSystem, source: str, target: str) -> None:
    """Copies an object by way of this machine."""
    try:
        with open_input(fs, source) as reader, fs.open_output_stream(target) as writer:
            while piece := reader.read(_PIECE_BYTES):
                writer.write(piece)
                writer.flush()
    except OSError:
        fs.delete_file(target)  # which was closed, and so is there, with what had been read
        raise


def open_input(fs: pafs.FileSystem, path: str) -> pa.NativeFile:
    """A file to read from, at any place in it.

    Raises:
        OSError: there is none, or it can't be reached; also while it is read.
    """
    handle = fs.open_input_file(path)
    return pa.PythonFile(_PatientReader(handle), mode="r") if fs.type_name == "s3" else handle


class _PatientReader:
    """An object of an S3-compatible store as a file of Python's, whose every read is tried again."""

    def __init__(self, handle: pa.NativeFile) -> None:
        self._handle, self._at = handle, 0

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        self._handle.close()

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._handle.size()}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._handle.size() - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        content = _again(lambda: self._handle.read_at(wanted, self._at))
        self._at += len(content)
        return content


def _again(read: Callable[[], Result]) -> Result:
    """Tries again what the SDK does not.

    A server's error comes with a text. Where it is longer than the bytes that were asked for, Arrow has no
    room for it, and the SDK takes that for a failure on this side. It waits as the SDK does.
    """
    for attempt in range(REQUEST_RETRIES):
        try:
            return read()
        except OSError as error:
            if "response stream" not in str(error):
                raise
            time.sleep(0.025 * 2**attempt)
    return read()


def _send(fs: pafs.FileSystem, path: str, content: bytes | pa.Buffer) -> None:
    whole = pa.py_buffer(content)
    with fs.open_output_stream(path) as stream:
        for start in range(0, whole.size, _PIECE_BYTES):
            if start:
                stream.flush()  # until the piece before has arrived
            stream.write(whole.slice(start, min(_PIECE_BYTES, whole.size - start)))


def _undisturbed(write: Callable[[], None]) -> None:
    """Runs `write` where no signal reaches it.

    A stream that is dropped is closed, and with that the object is there: Ctrl-C between opening and writing
    would leave an empty one. Signals reach the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return write()
    over = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            write()
        except BaseException as error:  # raised below, in the caller's thread
            failed.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="store-write").start()
    try:
        over.wait()
    except BaseException:
        over.wait(_INTERRUPTED_SECONDS)  # else what is written next could be overtaken by it
        raise
    if failed:
        raise failed[0]
