"""engine.node_labels on a cluster of three nodes: where the engines are, and what the autoscaler is told."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.generate.faults import SHARDS, FaultyRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SEEDS = 1500
LABELS = {"music-ray/group": "generation"}
PLUGIN = """
import asyncio
import ray
from music_ray.generate.contrasts import ContrastReply

async def contrast(request):
    await asyncio.sleep(2)  # so that all engines get their part, and the autoscaler hears of them
    return ContrastReply("node " + ray.get_runtime_context().get_node_id())
"""


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, a node without labels, and one with them.

    Ray Data asks for a larger cluster when half of it is in use: three engines of five CPUs.
    """
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # As `ray up` and KubeRay do; the older one is told no labels.
        patch.setenv("RAY_enable_autoscaler_v2", "1")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=1)
            cluster.labelled = cluster.add_node(num_cpus=4, labels=LABELS)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()


def labelled_run(folder: Path, labels: dict[str, str]) -> FaultyRun:
    """A run with three engines, whose contrasts say on which node they were written."""
    data = folder / "pairs.jsonl"
    with data.open("w") as handle:
        for number in range(SEEDS):
            opening = [{"role": "user", "content": f"Please tell me about topic {number}."}]
            chosen = [*opening, {"role": "assistant", "content": f"Topic {number} is good."}]
            rejected = [*opening, {"role": "assistant", "content": f"No idea about {number}."}]
            handle.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    (folder / "where.py").write_text(PLUGIN)
    values = {
        "name": "labelled",
        "runs_dir": str(folder / "runs"),
        "data": {"sources": [{"path": str(data)}], "held_out_fraction": 0.0},
        "engine": {"kind": "scripted", "min_engines": 3, "max_engines": 3, "node_labels": labels},
        "user": {"mode": "template"},
        "contrast": {"mode": "joint", "plugin": "where:contrast"},
        "generate": {"turns": 1, "conversations_per_task": 4, "canary": {"seeds": 0}},
    }
    return FaultyRun(folder, values)


def start(faulty: FaultyRun, stage: str, address: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1"}
    return subprocess.Popen(
        faulty.command(stage),
        cwd=faulty.folder,  # where the plugin is
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def asked_of_the_autoscaler(address: str) -> set[tuple[str, ...]]:
    """The labels of each bundle that a library wants the cluster to have room for, now."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply

    reply = GetClusterResourceStateReply()
    reply.ParseFromString(GcsClient(address=address).get_cluster_resource_state(timeout_s=10))
    return {
        tuple(
            f"{one.label_key}={','.join(one.label_values)}"
            for selector in request.request.label_selectors
            for one in selector.label_constraints
        )
        for constraint in reply.cluster_resource_state.cluster_resource_constraints
        for request in constraint.resource_requests
    }


@pytest.mark.faults  # breaks nothing, but takes its minutes
def test_engines_are_on_labelled_nodes_alone_and_more_are_asked_for_there(cluster, tmp_path) -> None:
    faulty = labelled_run(tmp_path, LABELS)
    assert start(faulty, "seeds", cluster.address).wait(timeout=200) == 0
    driver = start(faulty, "generate", cluster.address)
    asked: set[tuple[str, ...]] = set()
    while driver.poll() is None:
        asked |= asked_of_the_autoscaler(cluster.address)
        time.sleep(0.5)
    assert driver.stdout is not None
    assert driver.returncode == 0, driver.stdout.read()

    where: Counter[str] = Counter()
    for row in faulty.run.read_rows(*SHARDS, columns=["status", "rejected"]):
        assert row["status"] == "ok"
        where[row["rejected"][-1]["content"]] += 1
    assert where == {f"node {cluster.labelled.node_id}": SEEDS}
    assert asked == {("music-ray/group=generation",)}


def test_a_label_that_no_node_has_is_refused_at_once(cluster, tmp_path) -> None:
    faulty = labelled_run(tmp_path, {"music-ray/group": "generatoin"})
    assert start(faulty, "seeds", cluster.address).wait(timeout=200) == 0
    driver = start(faulty, "generate", cluster.address)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert said.splitlines()[-1].endswith(
        "engine.node_labels asks for nodes with music-ray/group=generatoin, and none of the cluster's 3 has "
        "that: start one with `ray start --labels music-ray/group=generatoin`, or leave engine.node_labels "
        "empty"
    )
