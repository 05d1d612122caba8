"""Drivers killed and a store that goes away, with every file on a real S3 server; then all is counted."""

from __future__ import annotations

import json
import subprocess
import time

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from music_ray.progress import say
from music_ray.reward.checkpoint_index import complete_steps
from music_ray.reward.logbook import PAIRS, read_log
from music_ray.rundir import RunDir
from tests.aws_server import KEYS
from tests.flaky_store import FlakyStore, bucket_server, flaky_store
from tests.generate.faults import FaultyRun, none_left
from tests.reward.conftest import make_model
from tests.s3_run import run_values, write_data

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1500)]
LEASE_SECONDS = 62
"""A dead driver's lease holds its run for a minute."""
STEPS = 60


@pytest.fixture
def store():
    with bucket_server() as port, flaky_store(port, seed=7) as running:
        yield running


@pytest.fixture
def make(store: FlakyStore, tmp_path):
    """make(seeds, **sections): a run with its seeds stage done; stopped at the end."""
    runs = []

    def build(seeds: int, with_model: bool = False, **sections) -> FaultyRun:
        base = make_model(tmp_path / "gemma2", "gemma2") if with_model else None
        values = run_values(store.port, write_data(store.port, seeds), base, **sections)
        faulty = FaultyRun(tmp_path, values, KEYS)
        runs.append(faulty)
        faulty.finish("seeds")
        return faulty

    yield build
    for faulty in runs:
        faulty.stop()


def check(outcome) -> None:
    assert (outcome.lost, outcome.duplicated, outcome.regenerated) == (0, 0, 0), outcome


def check_all_files_whole(run: RunDir) -> int:
    """Every object of the run can be read to its end; how many there are."""
    infos = run.fs.get_file_info(pafs.FileSelector(run.root, recursive=True))
    files = [info for info in infos if info.type == pafs.FileType.File]
    for info in files:
        with run.fs.open_input_file(info.path) as handle:
            if info.path.endswith(".parquet"):
                pq.ParquetFile(handle).read()
            elif info.path.endswith(".safetensors"):
                assert _length(content := handle.read()) == len(content), info.path
            elif info.path.endswith(".json"):
                json.loads(handle.read())
    return len(files)


def _length(safetensors: bytes) -> int:
    """How long the file must be, as its header says."""
    header = 8 + int.from_bytes(safetensors[:8], "little")
    tensors = json.loads(safetensors[8:header])
    return header + max(one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__")


def wait_for_checkpoint(faulty: FaultyRun, driver: subprocess.Popen[str], step: int) -> None:
    until = time.monotonic() + 300
    while max(complete_steps(faulty.run), default=0) < step:
        assert driver.poll() is None, faulty.said()
        assert time.monotonic() < until, faulty.said()
        time.sleep(0.2)


def kill(faulty: FaultyRun) -> None:
    """kill -9 of the driver; what it had started ends by itself, and its lease runs out."""
    left = faulty.kill_driver()
    killed = time.monotonic()
    assert none_left(left, seconds=90) == []
    time.sleep(max(0.0, LEASE_SECONDS - (time.monotonic() - killed)))


def test_a_road_whose_driver_is_killed_while_generating_and_while_training(make, store) -> None:
    store.share = 0.02
    faulty = make(1000, with_model=True)
    faulty.values["train"] |= {"steps": STEPS, "checkpoint_every": 5, "keep_checkpoints": 2}
    faulty.start()
    faulty.wait_for(100)
    kill(faulty)
    flushed = faulty.flushed()
    assert 100 <= len(flushed) < 800
    check_all_files_whole(faulty.run)
    faulty.finish()
    check(faulty.count("kill -9 of the driver, shards on an S3 that fails", flushed))
    faulty.finish("pairs")
    faulty.finish("mix")

    driver = faulty.start("train")
    wait_for_checkpoint(faulty, driver, 10)
    kill(faulty)
    resumed = max(complete_steps(faulty.run))
    assert 10 <= resumed < STEPS
    check_all_files_whole(faulty.run)
    faulty.finish("train")
    assert f"going on from the checkpoint of step {resumed}" in faulty.said()
    trained = [one for line in read_log(faulty.run, PAIRS) for one in line["ids"]]
    assert len(trained) == STEPS * 6 == len(set(trained)), "a pair was trained on twice within an epoch"

    faulty.finish("evaluate")
    faulty.finish("report")
    assert faulty.run.read_text("report", "index.html").rstrip().endswith("</html>")
    assert check_all_files_whole(faulty.run) > 20
    assert sum(store.faults.values()) >= 10


def test_a_store_that_goes_away_for_a_minute_and_then_for_good(make, store) -> None:
    faulty = make(3000, generate={"turns": 3, "flush_rows": 10, "flush_seconds": 1.0, "canary": {"seeds": 0}})
    driver = faulty.start()
    before = faulty.wait_for(200)
    store.always = "503"
    time.sleep(60)
    assert driver.poll() is None, faulty.said()
    store.always = ""
    faulty.wait_for(len(before) + 300)  # by the same driver
    store.always = "503"
    assert driver.wait(timeout=500) == 75, faulty.said()
    said = faulty.said()
    assert "Traceback" not in said
    assert "in bucket 'bucket': AWS Error SLOW_DOWN during" in said
    assert "once the store answers, the same command goes on" in said
    store.always = ""
    flushed = faulty.flushed()
    check_all_files_whole(faulty.run)
    faulty.finish()
    check(faulty.count("an S3 that was away for a minute, then for good; restarted", flushed))


def test_requests_of_a_thousand_seeds(make, store) -> None:
    """What docs/how-to/object-stores.md says of costs; -s shows it."""
    faulty = make(1000, held_out=0.0, generate={"turns": 5, "canary": {"seeds": 0}})
    say(f"seeds: {dict(store.requests)}")
    for stage in ("generate", "pairs", "mix"):
        store.requests.clear()
        started = time.monotonic()
        faulty.finish(stage)
        say(f"{stage}: {dict(store.requests)} in {time.monotonic() - started:.0f} s, command included")
        if stage == "generate":
            shards = len(faulty.run.parquet_files("rollouts", "shards"))
            say(f"shards: {shards}")
            written = store.requests["PUT"] + store.requests["LIST"]
    assert len(faulty.run.read_ids("seeds", "contexts")) == 1000
    assert written < 150, "requests that are paid for as writes"
