"""gs:// on a real server: whole or absent, folders that go away, and trouble that is one line."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from music_ray import cli, storage
from music_ray.config.load import resolve_config
from music_ray.errors import EnvironmentLacksError, InputError, TransientError
from music_ray.reward.checkpoint_index import all_steps
from music_ray.run_lock import StoreLease
from music_ray.rundir import RunDir, open_filesystem
from tests.gcs_server import gcs_server, gcs_uri, write_key


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    with gcs_server(tmp_path_factory.mktemp("key")) as running:
        yield running


@pytest.fixture
def run(port, tmp_path) -> RunDir:
    return RunDir(resolve_config({"name": "a", "runs_dir": gcs_uri(port, f"bucket/{tmp_path.name}")}))


@pytest.fixture
def refusing(tmp_path, monkeypatch):
    """A store that answers every request with one status; refusing(status) is a filesystem on it."""
    status = [0]

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status[0])
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_key(tmp_path / "key.json")))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def use(code: int) -> pafs.FileSystem:
            status[0] = code
            return open_filesystem(gcs_uri(server.server_port, "bucket", "&retry_limit_seconds=1"))[0]

        yield use
        server.shutdown()


@pytest.mark.parametrize("size", [0, 1, 1000, 20 * 2**20])
def test_a_file_comes_back_whole(run, tmp_path, size):
    content = os.urandom(size)
    run.write_bytes(content, "d", "file")
    assert run.read_bytes("d", "file") == content
    storage.fetch(run.fs, run.path("d", "file"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_a_folder_without_a_marker_is_removed(run):
    """Arrow alone ends with FileNotFoundError, when all is gone."""
    for name in ("1", "2"):
        run.write_text(name, "d", "e", name)
    with pytest.raises(FileNotFoundError, match="DeleteObject"):
        run.fs.delete_dir(run.path("d"))
    assert not run.exists("d")
    run.write_text("1", "d", "e", "1")
    run.write_text("2", "other")
    run.clear("d")
    run.clear("d")  # which is not there
    assert [info.base_name for info in storage.entries(run.fs, run.root)] == ["other"]


def test_what_lies_in_a_folder_is_listed_with_its_folders(run):
    """Arrow alone lists the file, and no folder."""
    run.write_text("1", "checkpoints", "outcome.json")
    run.write_text("1", "checkpoints", "step-000002", "index.json")
    run.write_text("1", "checkpoints", "step-000004", "deep", "file")
    [alone] = run.fs.get_file_info(pafs.FileSelector(run.path("checkpoints")))
    assert alone.base_name == "outcome.json"
    found = {info.base_name: info.type for info in storage.entries(run.fs, run.path("checkpoints"))}
    folder = pafs.FileType.Directory
    assert found == {"outcome.json": pafs.FileType.File, "step-000002": folder, "step-000004": folder}
    assert all_steps(run) == [2, 4]
    assert storage.entries(run.fs, run.path("none")) == []


def test_what_could_not_be_removed_is_no_success(run):
    run.write_text("1", "d", "1")
    with pytest.raises(FileNotFoundError, match="of something else"):
        storage.delete_folder(_Stubborn(run.fs), run.path("d"))


class _Stubborn:
    """A gs:// that removes nothing."""

    type_name = "gcs"

    def __init__(self, fs: pafs.FileSystem) -> None:
        self.get_file_info = fs.get_file_info

    def delete_dir(self, path: str) -> None:
        raise FileNotFoundError("google::cloud::Status(NOT_FOUND: of something else")


def test_a_folder_is_set_aside_twice(run):
    for round_ in ("one", "two"):
        run.write_text(round_, "model", "deep", "file")
        assert run.set_aside("model", "old") == run.display("model-old" if round_ == "one" else "model-old-2")
    assert not run.exists("model")
    assert run.read_text("model-old", "deep", "file") == "one"
    assert run.read_text("model-old-2", "deep", "file") == "two"


def test_one_driver_at_a_time(run):
    def lease() -> StoreLease:
        return StoreLease(run.fs, run.path("lock.json"), run.display(), 8.0)

    with lease(), pytest.raises(TransientError, match=r"is in use by process \d+ on "):
        lease().__enter__()
    assert not run.exists("lock.json")


def test_how_long_is_tried(port):
    def limit(options: str) -> float:
        fs, _ = open_filesystem(gcs_uri(port, "bucket", options))
        return fs.__reduce__()[1][0]["retry_time_limit"].total_seconds()

    assert (limit(""), limit("&retry_limit_seconds=7")) == (60.0, 7.0)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, EnvironmentLacksError, "UNAUTHENTICATED.*the store refuses this process.*GOOGLE_APPLICATION"),
        (403, EnvironmentLacksError, "PERMISSION_DENIED.*the store refuses this process"),
        (404, InputError, "make the bucket first"),
        (503, TransientError, "UNAVAILABLE.*; all tries have failed. All that is finished is kept"),
        (400, TransientError, "INVALID_ARGUMENT"),
    ],
)
def test_a_store_that_refuses_is_told_from_a_bug(refusing, status, kind, words):
    fs = refusing(status)
    with pytest.raises(storage.STORE_ERRORS) as failed:
        storage.put(fs, "bucket/file", b"x")
    meant = storage.as_user_error(failed.value)
    assert type(meant) is kind
    with pytest.raises(kind, match=words):
        raise meant


def test_a_store_that_is_down_is_not_a_damaged_file(refusing, run):
    down = refusing(503)
    with pytest.raises(OSError, match="UNAVAILABLE") as failed:
        storage.open_input(down, "bucket/p.parquet")
    assert storage.is_of_store(failed.value)
    with pytest.raises(FileNotFoundError) as absent:
        storage.open_input(run.fs, run.path("none"))
    assert not storage.is_of_store(absent.value)
    with pytest.raises(FileNotFoundError):  # a file of ours that is missing is a bug, or the caller's to tell
        storage.as_user_error(absent.value)


def test_arrows_own_error_is_one_line(monkeypatch, capsys):
    def broken(*arguments, **options):
        raise pa.ArrowException("Unknown error: google::cloud::Status(UNKNOWN: SSL connect error)")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 75
    assert capsys.readouterr().err.startswith("music-ray: Unknown error: google::cloud::Status(UNKNOWN")
