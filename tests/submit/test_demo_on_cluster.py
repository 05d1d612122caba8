"""The demo as a job of a real head with a token: stopped while it generates, submitted again, to its report.

Real vLLM and real ZeRO-3, as configs/demo.yaml has them; smaller, and with little in flight, so that there
is time to stop.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from music_ray.config.load import load_config
from music_ray.jobs.shards import read_index
from music_ray.models import DEMO_MODEL, cache_dir, resolve_model
from music_ray.rundir import STAGES, RunDir
from tests.submit.ray_head import RayHead

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(2700)]
ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/demo.yaml"
SHARDS = ("rollouts", "shards")
SEEDS, FLUSHED_BEFORE = 24, 4
START_SECONDS, JOB_SECONDS = 600, 1500
SMALLER = (
    f"seeds.num_seeds={SEEDS}",
    "train.steps=2",
    "train.checkpoint_every=1",
    "train.evaluate_every=null",
    "evaluate.max_pairs=4",
    "evaluate.bootstrap_samples=100",
)
SLOWLY = (
    "generate.conversations_per_task=1",
    "generate.tasks_in_flight=2",
    "generate.flush_rows=2",
    "generate.flush_seconds=1.0",
)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHead]:
    """A head whose jobs find the converted model, although their home is a folder of its own."""
    resolve_model(DEMO_MODEL)
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(cache_dir()))
    head = RayHead()
    try:
        head.start()
        yield head
    finally:
        head.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory as a checkout has it: the package and the configuration that is shipped."""
    folder = tmp_path / "work"
    (folder / "configs").mkdir(parents=True)
    (folder / "music_ray").symlink_to(ROOT / "music_ray")
    shutil.copy(ROOT / CONFIG, folder / CONFIG)
    return folder


def start(head: RayHead, folder: Path, log: Path, *words: str) -> subprocess.Popen[str]:
    """music-ray as a user on another machine starts it."""
    command = [sys.executable, "-m", "music_ray", *words, "--address", head.address]
    with log.open("w") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, text=True, cwd=folder, env=head.environment(),
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip


def wait_for_rows(run: RunDir, number: int, following: subprocess.Popen[str], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while len(read_index(run, SHARDS).ids) < number:
        assert following.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def rows_of(run: RunDir) -> dict[int, dict[str, Any]]:
    """What must not change of a row that is made, by its seed."""
    columns = ["id", "run_epoch", "status", "reason", "chosen", "rejected", "calls"]
    rows = list(run.read_rows(*SHARDS, columns=columns))
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows), "a seed came out twice"
    return by_id


def test_the_demo_is_stopped_while_it_generates_and_goes_on_to_its_report(
    head: RayHead, folder: Path, tmp_path: Path
) -> None:
    words = (CONFIG, f"runs_dir={tmp_path}/shared", *SMALLER, *SLOWLY)
    run = RunDir(load_config(folder / CONFIG, words[1:]))
    log = tmp_path / "followed.log"
    following = start(head, folder, log, "submit", *words)
    wait_for_rows(run, FLUSHED_BEFORE, following, log)
    stopping = start(head, folder, tmp_path / "stop.log", "stop", *words)
    assert stopping.wait(timeout=120) == 0, (tmp_path / "stop.log").read_text()
    assert following.wait(timeout=120) == 130, log.read_text()
    assert "music-ray: job music-ray-demo-1 was stopped: the same submit goes on\n" in log.read_text()

    before = rows_of(run)
    assert FLUSHED_BEFORE <= len(before) < SEEDS, "it was stopped too late to show anything"
    assert run.manifest()["stages"]["generate"]["status"] == "running"

    following = start(head, folder, log, "submit", *words)
    assert following.wait(timeout=JOB_SECONDS) == 0, log.read_text()
    said = log.read_text()
    assert f"generate: {len(before)} of {SEEDS} rollouts are there already" in said
    assert said.endswith("job music-ray-demo-2 has succeeded\n")

    after = rows_of(run)
    seeds = run.read_ids("seeds", "contexts").tolist()
    assert len(seeds) == len(set(seeds)) == SEEDS
    assert after.keys() == set(seeds)
    assert {one: after[one] for one in before} == before, "what was finished was made again"
    assert {row["run_epoch"] for row in before.values()} == {1}
    assert {after[one]["run_epoch"] for one in after.keys() - before.keys()} == {2}
    stages = run.manifest()["stages"]
    counts = stages["generate"]["counts"]
    assert counts["ok"] + sum(counts["errors"].values()) == SEEDS and counts["duplicate_rows"] == 0
    assert {stages[stage]["status"] for stage in STAGES} == {"done"}
    assert run.read_text("report", "index.html").rstrip().endswith("</html>")
