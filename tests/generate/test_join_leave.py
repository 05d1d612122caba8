"""A node that joins a running generation is used, and one that leaves costs no row."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from music_ray.progress import say
from tests.chaos.generation import Generation, make_run
from tests.chaos.nodes import Nodes
from tests.chaos.scene import ROOT
from tests.chaos.slow_contrast import FOLDER, set_pace
from tests.generate.faults import ACTOR

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
SEEDS = 600
USED_SECONDS = 60.0
POOL = {
    "engine": {"kind": "scripted", "min_engines": 1, "max_engines": 4},
    "generate": {
        "turns": 3,
        "conversations_per_task": 4,
        "tasks_in_flight": 2,
        "flush_rows": 16,
        "flush_seconds": 2.0,
        "canary": {"seeds": 0},
    },
}


def test_a_node_that_joins_is_used_within_a_minute_and_its_rows_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    faulty = make_run(tmp_path, SEEDS, POOL)
    subprocess.run(faulty.command("seeds"), check=True, cwd=ROOT)
    set_pace(tmp_path, seconds=2.0, until=time.time() + 300, ask=False)
    with Nodes(1, cpus=2) as nodes:
        faulty.environment["RAY_ADDRESS"] = nodes.address
        work = Generation(nodes, tmp_path, faulty)
        driver = faulty.start()
        faulty.wait_for(16)

        began = time.time()
        joined = nodes.join()
        while not (at_work := _at_work_on(joined, nodes, work)):
            assert time.time() - began < USED_SECONDS, f"not used after {USED_SECONDS:.0f} s\n{faulty.said()}"
            assert driver.poll() is None, faulty.said()
            time.sleep(0.2)
        used = min(work.first_call(pid) or began for pid in at_work) - began

        time.sleep(8)  # rows of its own lie in shards, and others are in flight
        flushed = faulty.flushed()
        nodes.lose(joined)
        time.sleep(2)
        set_pace(tmp_path, seconds=0.0, until=0.0, ask=False)
        assert driver.wait(timeout=200) == 0, faulty.said()
        outcome = faulty.count("a node joined and left, no restart", flushed)
    assert (outcome.seeds, outcome.lost, outcome.duplicated, outcome.regenerated) == (SEEDS, 0, 0, 0)
    record_property("seconds until the node was used", round(used, 1))
    say(f"a node that joined was at work after {used:.1f} s")


def _at_work_on(node: object, nodes: Nodes, work: Generation) -> list[int]:
    work.look()
    return [process.pid for process in nodes.workers(ACTOR, node) if work.first_call(process.pid) is not None]
