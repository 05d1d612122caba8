"""Threads of an engine on the CPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from music_ray.config import EngineConfig
from music_ray.engines.threads import engine_threads
from tests.engines.tiny_model import make_tiny_model


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        ({}, 8),  # a machine of its own, though Ray is asked for one CPU
        ({"max_engines": 3}, 2),
        ({"cpus_per_engine": 4, "max_engines": 3}, 4),
        ({"cpus_per_engine": 16, "min_engines": 2, "max_engines": 100}, 16),  # over many machines
        ({"cpus_per_engine": 0.5, "max_engines": 100}, 1),
    ],
)
def test_an_engine_has_its_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert engine_threads(EngineConfig(model="some/model", **settings)) == threads


def test_threads_of_an_engine_on_gpus_are_left_alone() -> None:
    assert engine_threads(EngineConfig(model="some/model", gpus_per_engine=1)) is None


@pytest.mark.faults  # breaks nothing, but takes its minutes
@pytest.mark.slow
@pytest.mark.parametrize("arrangement", ["in_process", "subprocess"])
def test_the_one_thread_that_ray_leaves_an_actor_is_not_vllms(tmp_path: Path, arrangement: str) -> None:
    """Ray sets OMP_NUM_THREADS=1 in an actor that asks for one CPU; the other cores would idle."""
    cores = sorted(os.sched_getaffinity(0))
    assert len(cores) > 1, "this test needs two cores"
    found = subprocess.run(
        [sys.executable, "-m", "tests.engines.thread_count", make_tiny_model(tmp_path / "tiny"), arrangement],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.splitlines()[-1] == f"threads {len(cores)}"
