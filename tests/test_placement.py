"""Where things run on a cluster: nothing on its head, generation and training in turn, nothing left over."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import EXIT_USER
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, to_table
from tests.chaos import training
from tests.chaos.nodes import Nodes
from tests.chaos.scene import ROOT
from tests.reward.conftest import make_model, make_pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
WORK = {"MapWorker", "RayTrainWorker", "ListFiles", "FooterReader", "_map_task"}
"""Ray's names for engines, training workers, and what reads for them."""
IN_TURN = """
import json, sys, time
from music_ray.config.load import load_config
from music_ray.run import run_stages
from music_ray.reward.train import run_train

run = run_stages(load_config(sys.argv[1]), ["seeds", "generate"])
with run.lock():
    run_train(run)

import ray
from ray._private.state import actors
until = time.monotonic() + 30
while time.monotonic() < until and ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
    time.sleep(0.5)
facts = {
    "free": ray.available_resources().get("CPU"),
    "alive": sorted(one["ActorClassName"] for one in actors().values() if one["State"] != "DEAD"),
    "groups": sorted({one["state"] for one in ray.util.placement_group_table().values()}),
}
print("FACTS " + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Two nodes of one CPU each: enough for an engine and its reader, or for two training workers."""
    with Nodes(2, cpus=1) as nodes:
        yield nodes


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose mix is there already."""
    data = tmp_path / "pairs.jsonl"
    with data.open("w") as handle:
        for number in range(60):
            asked = [{"role": "user", "content": f"Please tell me about topic {number}."}]
            sides = {
                side: [*asked, {"role": "assistant", "content": f"It is {side}."}]
                for side in ("chosen", "rejected")
            }
            handle.write(json.dumps(sides) + "\n")
    values = {
        "name": "placed",
        "runs_dir": str(tmp_path / "runs"),
        "data": {"sources": [{"path": str(data)}], "held_out_fraction": 0.0},
        "engine": {"kind": "scripted"},
        "user": {"mode": "template"},
        "contrast": {"mode": "resample"},
        "generate": {"turns": 1, "canary": {"seeds": 0}},
        "train": {
            "base_model": str(make_model(tmp_path / "gemma2", "gemma2")),
            "steps": 3,
            "pairs_per_step": 6,
            "max_tokens": 64,
            "evaluate_every": None,
        },
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    run = RunDir(resolve_config(values))
    pairs = [make_pair(number) for number in range(17)]
    run.write_table(to_table(pairs, PAIR_SCHEMA), "mix", "train-00000.parquet")
    return run


def start(nodes: Nodes, folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_ADDRESS": nodes.address},
    )  # fmt: skip


def kinds_on(nodes: Nodes, node: object) -> set[str]:
    """What Ray's workers on a node are at, without their arguments: 'MapWorker', 'RayTrainWorker'."""
    kinds = set()
    for process in nodes.workers("ray::", node):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:  # gone meanwhile
            continue
        if found := re.search(r"ray::(\w+)", command):
            kinds.add(found[1])
    return kinds


@pytest.mark.faults  # breaks nothing, but takes its minutes
def test_generation_and_training_in_turn_leave_the_head_alone_and_nothing_behind(
    nodes, run, tmp_path
) -> None:
    (tmp_path / "in_turn.py").write_text(IN_TURN)
    driver = start(nodes, tmp_path, str(tmp_path / "in_turn.py"), str(tmp_path / "config.yaml"))
    seen: dict[str, set[str]] = defaultdict(set)
    together: list[set[str]] = []
    while driver.poll() is None:
        seen["head"] |= kinds_on(nodes, nodes.head)
        there = set().union(*(kinds_on(nodes, node) for node in nodes.alive))
        seen["nodes"] |= there
        together.append(there & {"MapWorker", "RayTrainWorker"})
        time.sleep(0.1)
    assert driver.stdout is not None
    said = driver.stdout.read()
    assert driver.returncode == 0, said
    assert seen["nodes"] >= {"MapWorker", "RayTrainWorker"}
    assert "FooterReader" not in seen["nodes"]  # 32 processes that nobody starts again
    # What is on the head asks for no CPU: the board, and what Ray itself keeps accounts with.
    assert "Board" in seen["head"]
    assert not seen["head"] & WORK, seen["head"]
    assert {"MapWorker", "RayTrainWorker"} not in together
    [line] = [line for line in said.splitlines() if line.startswith("FACTS ")]
    facts = json.loads(line.removeprefix("FACTS "))
    assert facts["free"] == 2.0
    assert facts["groups"] in ([], ["REMOVED"])
    left = {name for name in facts["alive"] if name.startswith((*WORK, "Board", "TrainController"))}
    assert not left, facts["alive"]


def test_engines_that_can_never_be_placed_are_refused_at_once(nodes, run, tmp_path) -> None:
    pool = ("engine.min_engines=2", "engine.max_engines=2")
    assert refusal(nodes, tmp_path, "run", str(tmp_path / "config.yaml"), *pool) == (
        "music-ray: engine.min_engines (2), with 1 CPU to read seeds, asks for 3 CPUs, the cluster has 2: "
        "lower engine.min_engines, engine.cpus_per_engine or engine.gpus_per_engine, raise ray.num_cpus, or "
        "add nodes"
    )


def test_a_training_worker_that_no_node_can_hold_is_refused_at_once(nodes, tmp_path) -> None:
    """Two nodes of one CPU have two CPUs, which Ray would wait for without end."""
    run = training.make_run(tmp_path, "wide", steps=3)
    config = tmp_path / "config.yaml"
    config.write_text(run.config.model_dump_json())
    wide = ("train.num_workers=1", "train.cpus_per_worker=2")
    assert refusal(nodes, tmp_path, "train", str(config), *wide) == (
        "music-ray: each training worker asks for 2 CPUs on one node, and no node has so much: lower "
        "train.cpus_per_worker or train.num_workers, or add nodes"
    )


def refusal(nodes: Nodes, folder: Path, *words: str) -> str:
    """The last line of a command that ends with a user's mistake within 40 seconds."""
    began = time.monotonic()
    said, _ = (driver := start(nodes, folder, "-m", "music_ray", *words)).communicate(timeout=100)
    assert driver.returncode == EXIT_USER, said
    assert time.monotonic() - began < 40
    return said.splitlines()[-1]
