"""The lease that stands for a lock on object stores: real files behind a filesystem without locks."""

import json
import signal
import threading
import time

import pyarrow.fs as pafs
import pytest

from music_ray import run_lock
from music_ray.errors import RunFolderError, TransientError
from music_ray.run_lock import StoreLease


def lease(folder, seconds=0.4):
    return StoreLease(pafs.LocalFileSystem(), str(folder / "lock.json"), "s3://bucket/run", seconds)


def test_a_second_driver_is_refused_while_the_first_renews_its_lease(tmp_path):
    with lease(tmp_path):
        time.sleep(1.0)  # two leases long: only renewing keeps it
        with pytest.raises(
            TransientError, match=r"^s3://bucket/run is in use by process \d+ on .*again in"
        ) as refused:
            lease(tmp_path).__enter__()
        assert refused.value.exit_code == 75
    assert not (tmp_path / "lock.json").exists()
    with lease(tmp_path):
        pass


def test_what_a_dead_driver_held_is_taken_over_when_its_lease_has_run_out(tmp_path):
    held = {"token": "dead", "who": "7 on gone", "renewed": time.time()}
    (tmp_path / "lock.json").write_text(json.dumps(held))
    with pytest.raises(TransientError, match="in use by process 7 on gone"):
        lease(tmp_path).__enter__()
    time.sleep(0.5)
    with lease(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["token"] != "dead"


def test_of_drivers_that_start_together_one_wins(tmp_path):
    won, lost, gate, over = [], [], threading.Barrier(4), threading.Event()

    def drive():
        gate.wait()
        try:
            with lease(tmp_path, seconds=8.0):  # then they wait for two seconds, which a busy machine needs
                won.append(1)
                over.wait(20)
        except (RunFolderError, TransientError) as error:
            lost.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(won) + len(lost) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    over.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 3)


def test_a_lease_that_was_taken_over_is_not_removed_by_its_former_holder(tmp_path):
    path = tmp_path / "lock.json"
    with lease(tmp_path, seconds=30):
        path.write_text(json.dumps({"token": "other", "who": "9 on b", "renewed": time.time()}))
    assert json.loads(path.read_text())["token"] == "other"


def test_a_driver_whose_lease_was_taken_over_ends_itself_at_its_next_renewal(tmp_path, capsys, monkeypatch):
    taken_over = threading.Event()
    monkeypatch.setattr(run_lock, "TAKEN_OVER", taken_over)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with lease(tmp_path, seconds=2.0):
            (tmp_path / "lock.json").write_text(json.dumps({"token": "other", "renewed": time.time()}))
            assert ended.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (
        "s3://bucket/run: another driver has taken this run over, this one ends\n" in capsys.readouterr().out
    )
    assert taken_over.is_set()
    assert json.loads((tmp_path / "lock.json").read_text())["token"] == "other"
