"""Files on a real S3 server that fails: whole or absent, tried again, and trouble that stays is one line."""

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.fs as pafs
import pytest

from music_ray import cli, storage
from music_ray.config.load import resolve_config
from music_ray.errors import EnvironmentLacksError, InputError, StageError, TransientError
from music_ray.jobs.ledger import ShardWriter, open_epoch
from music_ray.jobs.shards import read_index
from music_ray.jobs.usage import write_usage
from music_ray.run_lock import StoreLease
from music_ray.rundir import RunDir, open_filesystem
from music_ray.schema import ROLLOUT_SCHEMA
from tests.flaky_store import FAULTS, FlakyStore, bucket_server, flaky_store, uri_of
from tests.jobs.test_ledger import ROW, SHARDS

MULTIPART = 11 * 2**20
"""pyarrow sends more than 10 MB in parts."""


@pytest.fixture(scope="module")
def server():
    with bucket_server() as port:
        yield port


@pytest.fixture
def store(server):
    with flaky_store(server) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch):
    """A store that is down is down after three quick tries."""
    monkeypatch.setattr(storage, "REQUEST_RETRIES", 2)


def opened(store: FlakyStore, path: str):
    return open_filesystem(uri_of(store.port, f"bucket/{path}"))


def content_in(server: int, path: str) -> bytes | None:
    """What the server itself has."""
    fs, _ = open_filesystem(uri_of(server, "bucket"))
    if fs.get_file_info(f"bucket/{path}").type == pafs.FileType.NotFound:
        return None
    with fs.open_input_file(f"bucket/{path}") as handle:
        return handle.read()


@pytest.mark.parametrize(
    ("location", "parts", "expected"),
    [
        ("runs", ("a", "b"), "runs/a/b"),
        ("s3://b/runs/", ("a",), "s3://b/runs/a"),
        ("s3://b/runs/?endpoint_override=http://x:1", ("a",), "s3://b/runs/a?endpoint_override=http://x:1"),
    ],
)
def test_places_below_others(location, parts, expected):
    assert storage.below(location, *parts) == expected
    parent, name = storage.parent_and_name(expected)
    assert name == parts[-1]
    assert storage.below(parent, name) == expected


def test_a_small_file_is_one_request_and_a_large_one_comes_in_parts(server, store):
    fs, path = opened(store, "requests")
    storage.put(fs, f"{path}/small", b"x" * 1000)
    assert store.requests == {"PUT": 1}
    store.requests.clear()
    storage.put(fs, f"{path}/large", b"x" * MULTIPART)
    assert store.requests == {"UPLOAD": 1, "PART": 2, "COMPLETE": 1}


def test_a_file_goes_piece_by_piece_and_comes_back_whole(server, store, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_PIECE_BYTES", 6 * 2**20)
    fs, path = opened(store, "pieces")
    content = os.urandom(MULTIPART)
    for name, written in (("whole", content), ("empty", b"")):
        (tmp_path / name).write_bytes(written)
        storage.put_file(fs, f"{path}/{name}", tmp_path / name)
        assert content_in(server, f"pieces/{name}") == written
        storage.fetch(fs, f"{path}/{name}", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == written


def test_every_file_is_whole_or_absent_while_requests_fail(server, store):
    """Each name is written twice; whatever a reader meets at any time is one of the two, and whole."""
    store.share = 0.3
    fs, path = opened(store, "flaky")
    sizes = [0, 1, 1000, 100_000, MULTIPART]
    names = {f"{number}-{sizes[number % len(sizes)]}": sizes[number % len(sizes)] for number in range(30)}
    met: list[tuple[str, bytes]] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.05):
            for name, size in names.items():
                if size < MULTIPART and (found := content_in(server, f"flaky/{name}")) is not None:
                    met.append((name, found))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for letter in (b"a", b"b"):
            with ThreadPoolExecutor(8) as pool:
                writes = [
                    pool.submit(storage.put, fs, f"{path}/{name}", letter * size)
                    for name, size in names.items()
                ]
                assert [write.result() for write in writes] == [None] * len(names)
    finally:
        over.set()
        reader.join()
    assert set(store.faults) == set(FAULTS)
    assert met
    assert [name for name, found in met if found not in (b"a" * names[name], b"b" * names[name])] == []
    # And all is read through the faults.
    found = {info.base_name: info.size for info in fs.get_file_info(pafs.FileSelector(path))}
    assert found == names
    for name, size in names.items():
        with storage.open_input(fs, f"{path}/{name}") as handle:
            assert handle.read() == b"b" * size
            handle.seek(size // 2)
            assert (handle.read(2), handle.tell()) == (
                b"b" * min(2, size - size // 2),
                min(size // 2 + 2, size),
            )


@pytest.mark.parametrize("bound", [2**30, 100], ids=["copied by the store", "copied through here"])
def test_a_folder_is_moved_with_files_that_the_store_does_not_copy(server, store, monkeypatch, bound):
    monkeypatch.setattr(storage, "_COPIED_BYTES", bound)
    monkeypatch.setattr(storage, "_PIECE_BYTES", 6 * 2**20)
    fs, path = opened(store, f"moved-{bound}")
    content = {"small": b"s", "sub/large": os.urandom(MULTIPART)}
    for name, written in content.items():
        storage.put(fs, f"{path}/old/{name}", written)
    storage.move_folder(fs, f"{path}/old", f"{path}/new")
    for name, written in content.items():
        assert content_in(server, f"moved-{bound}/old/{name}") is None
        assert content_in(server, f"moved-{bound}/new/{name}") == written
    assert store.requests["COPY"] == (2 if bound > MULTIPART else 1)


def test_an_upload_whose_end_is_told_twice_is_made_again(server, store):
    store.next["COMPLETE"] = ["answer lost", "no upload"]
    fs, path = opened(store, "twice")
    storage.put(fs, f"{path}/a", b"y" * MULTIPART)
    assert store.requests["UPLOAD"] == 2
    assert content_in(server, "twice/a") == b"y" * MULTIPART


@pytest.fixture
def ctrl_c_is_heard():
    """Not so by itself where the tests were started in a shell's background: they inherit a deaf ear."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("size", [10, MULTIPART], ids=["one request", "parts"])
def test_ctrl_c_leaves_the_file_whole(server, store, size):
    fs, path = opened(store, "interrupted")
    storage.put(fs, f"{path}/a", b"1" * size)
    store.delay = 0.5
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        storage.put(fs, f"{path}/a", b"2" * size)
    assert content_in(server, "interrupted/a") == b"2" * size


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("size", [10, MULTIPART], ids=["one request", "parts"])
def test_a_store_that_stays_down_leaves_the_old_file(server, store, size):
    fs, path = opened(store, "down")
    storage.put(fs, f"{path}/a", b"1" * size)
    store.always = "503"
    with pytest.raises(OSError, match=r"key 'down/a' in bucket 'bucket': AWS Error SLOW_DOWN during"):
        storage.put(fs, f"{path}/a", b"2" * size)
    store.always = ""
    assert content_in(server, "down/a") == b"1" * size


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "kind", "remedy"),
    [
        (
            "503",
            TransientError,
            "All that is finished is kept: once the store answers, the same command goes on",
        ),
        ("cut request", TransientError, "All that is finished is kept"),
        ("403", EnvironmentLacksError, "the store refuses this process. Set AWS_ACCESS_KEY_ID and"),
        ("no bucket", InputError, "make the bucket first (music_ray makes none), or correct the URI"),
    ],
)
def test_what_trouble_with_a_store_means(store, fault, kind, remedy):
    store.always = fault
    fs, path = opened(store, "trouble")
    with pytest.raises(OSError) as trouble:
        storage.put(fs, f"{path}/a", b"1")
    meant = storage.as_user_error(trouble.value)
    assert type(meant) is kind
    assert "'trouble/a' in bucket 'bucket'" in str(meant) and remedy in str(meant)


def test_a_bug_is_no_trouble_of_storage():
    with pytest.raises(FileNotFoundError):
        storage.as_user_error(FileNotFoundError(2, "no such file"))


def test_what_costs_money_is_written_once_the_store_is_back(store, monkeypatch, capsys):
    monkeypatch.setattr(storage, "REQUEST_RETRIES", 1)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: setattr(store, "always", ""))
    store.always = "500"
    fs, path = opened(store, "patient")
    storage.patiently(lambda: storage.put(fs, f"{path}/a", b"1"), "shard a")
    assert (
        "shard a: attempt 1 of 6 failed (When uploading object with key 'patient/a'"
        in capsys.readouterr().out
    )


@pytest.mark.usefixtures("impatient")
def test_a_lease_that_cannot_be_given_back_does_not_hide_how_the_command_ended(store, capsys):
    fs, path = opened(store, "lease")
    with (
        pytest.raises(StageError, match="the budget is spent"),
        StoreLease(fs, f"{path}/lock.json", "RUN", 2.0),
    ):
        store.always = "503"
        raise StageError("the budget is spent")
    assert "RUN: the lease could not be given back (When" in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("fault", "code"), [("503", 75), ("403", 2)])
def test_a_command_ends_with_one_line(store, monkeypatch, capsys, tmp_path, fault, code):
    store.always = fault
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"chosen": "a", "rejected": "b"}\n')
    monkeypatch.setattr("signal.signal", lambda *_: None)
    uri = uri_of(store.port, "bucket/runs")
    words = ["seeds", str(data), f"runs_dir={uri}", "engine.kind=scripted"]
    monkeypatch.setattr(sys, "argv", ["music-ray", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("music-ray: When ") and "in bucket 'bucket': AWS Error" in line


def test_what_shards_records_and_leases_cost_in_requests(store):
    """The numbers of docs/how-to/object-stores.md."""
    run = RunDir(resolve_config({"name": "a", "runs_dir": uri_of(store.port, "bucket/cost")}))
    open_epoch(run, SHARDS, 1)
    store.requests.clear()

    async def write_a_shard() -> None:
        ledger = ShardWriter(run, SHARDS, ROLLOUT_SCHEMA, 1, flush_rows=1, flush_seconds=9.0)
        ledger.begin(1)
        await ledger.add(ROW)

    asyncio.run(write_a_shard())
    assert store.requests == {"HEAD": 1, "GET": 1, "PUT": 1}, "of a shard, whatever its rows"
    store.requests.clear()
    write_usage(run, "generate", 1, {"engine_seconds": 1.0})
    assert store.requests == {"PUT": 1}, "every ten seconds"
    with StoreLease(run.fs, run.path("lock.json"), "RUN", seconds=60.0):
        store.requests.clear()
    given_back = store.requests.copy()
    with StoreLease(run.fs, run.path("lock.json"), "RUN", seconds=2.0):
        store.requests.clear()
        time.sleep(2.0)  # how often it is renewed meanwhile is the machine's affair
    renewals = store.requests["PUT"] - given_back["PUT"]
    of_a_renewal = {"HEAD": 2 * renewals, "GET": renewals, "PUT": renewals}
    assert renewals and store.requests - given_back == of_a_renewal, "every 15 seconds"
    store.requests.clear()
    assert read_index(run, SHARDS).ids.tolist() == [1]
    assert store.requests["LIST"] == 1


def test_a_slow_store_is_waited_for(server, store):
    fs, path = opened(store, "slow")
    store.delay = 4.5  # pyarrow's own patience is 3 s
    storage.put(fs, f"{path}/a", b"1")
    assert store.requests == {"PUT": 1}


def test_the_sdk_waits_as_long_as_is_said(store):
    """Twice the last wait but one is what all of them take: 25 ms, doubled."""
    assert sum(0.025 * 2**retry for retry in range(1, storage.REQUEST_RETRIES)) == pytest.approx(25.55)
    fs, path = opened(store, "waits")
    store.always = "500"
    started = time.monotonic()
    threading.Timer(1.0, lambda: setattr(store, "always", "")).start()
    storage.put(fs, f"{path}/a", b"1")  # away for a second: tries at 0, 0, 0.05, 0.15, 0.35, 0.75, 1.55 s
    assert 1.0 < time.monotonic() - started < 10.0
