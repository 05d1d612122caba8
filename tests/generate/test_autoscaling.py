"""The engine pool on a cluster that begins with its head alone: it grows with pending seeds, and goes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from music_ray.progress import say
from tests.chaos.generation import SCRIPTED, make_run
from tests.chaos.scene import ROOT
from tests.chaos.slow_contrast import FOLDER, set_pace
from tests.generate.autoscaled_head import AutoscaledHead
from tests.generate.faults import FaultyRun

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(500)]
SEEDS = 500
POOL = {**SCRIPTED, "engine": {"kind": "scripted", "min_engines": 1, "max_engines": 3}}

DRIVERS: list[subprocess.Popen[str]] = []


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AutoscaledHead]:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    head = AutoscaledHead()
    try:
        head.start()
        yield head
    finally:
        for driver in DRIVERS:
            if driver.poll() is None:
                driver.kill()
        head.close()


def start(faulty: FaultyRun, stage: str, head: AutoscaledHead) -> subprocess.Popen[str]:
    environment = head.environment() | {
        "RAY_ADDRESS": head.gcs_address,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray looks for it at the machine's own address
        FOLDER: os.environ[FOLDER],
    }
    with (faulty.folder / "driver-0.log").open("w") as log:
        process = subprocess.Popen(
            faulty.command(stage), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment
        )
    faulty.drivers[:] = [process]
    DRIVERS.append(process)
    return process


def test_the_pool_grows_with_pending_seeds_and_the_cluster_shrinks_at_the_end(
    head: AutoscaledHead, tmp_path: Path, record_property: Any
) -> None:
    faulty = make_run(tmp_path, SEEDS, POOL)
    assert start(faulty, "seeds", head).wait(timeout=60) == 0, faulty.said()
    set_pace(tmp_path, seconds=2.0, until=time.time() + 240, ask=False)
    assert (head.nodes(), head.engines()) == (0, 0)
    began = time.monotonic()
    driver = start(faulty, "generate", head)
    reached: dict[str, float] = {}
    while len(reached) < 3:
        assert driver.poll() is None and time.monotonic() - began < 150, f"{reached}\n{faulty.said()}"
        seen = {"1 engine": head.engines() >= 1, "3 engines": head.engines() >= 3, "nodes": head.nodes() >= 2}
        for name in (name for name, is_there in seen.items() if is_there):
            reached.setdefault(name, round(time.monotonic() - began, 1))
        time.sleep(0.5)
    set_pace(tmp_path, seconds=0.0, until=0.0, ask=False)
    assert driver.wait(timeout=120) == 0, faulty.said()
    assert head.engines() == 0
    ended = time.monotonic()
    while head.nodes():
        assert time.monotonic() - ended < 120, f"{head.nodes()} nodes are still there"
        time.sleep(0.5)
    reached["no node, after the end"] = round(time.monotonic() - ended, 1)
    outcome = faulty.count("the cluster grew and shrank", set())
    assert (outcome.seeds, outcome.lost, outcome.duplicated) == (SEEDS, 0, 0)
    record_property("seconds until", reached)
    say(f"seconds until: {reached}")


def test_what_no_node_that_may_be_added_holds_is_refused_at_once(
    head: AutoscaledHead, tmp_path: Path
) -> None:
    faulty = make_run(tmp_path, 4, {**POOL, "engine": {"kind": "scripted", "cpus_per_engine": 3}})
    assert start(faulty, "seeds", head).wait(timeout=60) == 0, faulty.said()
    assert start(faulty, "generate", head).wait(timeout=90) == 2, faulty.said()
    assert (
        "each engine asks for 3 CPUs on one node, and no node has so much: lower engine.min_engines, "
        "engine.cpus_per_engine" in faulty.said()
    )
