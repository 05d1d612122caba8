"""A checkpoint before a node is taken away: all ranks agree on the step, once an announcement."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from music_ray.reward.preemption import PreemptionWatch
from tests.reward.zero3_ranks import call_ranks


@pytest.mark.slow
def test_all_ranks_agree_and_an_announcement_counts_once(tmp_path: Path) -> None:
    assert call_ranks(_watch_scripted, 2, str(tmp_path)) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second == [False, True, False, True, False]


def _watch_scripted(folder: str) -> None:
    import torch.distributed as dist

    answers = iter([(), ("a",), ("a",), ("a", "b"), ("a", "b")])
    watch = PreemptionWatch(ask=lambda: next(answers), every_seconds=0.0)
    said = [watch.imminent() for _ in range(5)]
    Path(folder, f"{dist.get_rank()}.json").write_text(json.dumps(said))


@pytest.mark.slow
def test_rank_0s_clock_decides_when_to_ask(tmp_path: Path) -> None:
    """The ranks' clocks differ, and the question is a meeting of all: whoever came alone would wait."""
    assert call_ranks(_watch_with_clocks_apart, 2, str(tmp_path)) == [0, 0]
    asked = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert asked == [0, 0]


def _watch_with_clocks_apart(folder: str) -> None:
    import torch.distributed as dist

    asked: list[int] = []

    def ask() -> tuple[str, ...]:
        asked.append(1)
        return ()

    watch = PreemptionWatch(ask=ask, every_seconds=60.0 if dist.get_rank() == 0 else 0.0)
    for _ in range(5):
        watch.imminent()
    Path(folder, f"{dist.get_rank()}.json").write_text(json.dumps(len(asked)))


@pytest.mark.slow
def test_outside_of_ray_train_nothing_is_announced(tmp_path: Path) -> None:
    assert call_ranks(_watch_alone, 1) == [0]


def _watch_alone() -> None:
    watch = PreemptionWatch(every_seconds=0.0)
    assert not watch.imminent()


@pytest.mark.slow
@pytest.mark.faults
def test_a_drained_node_leads_to_a_save_and_a_restart_elsewhere(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        leaving = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        trainer = TorchTrainer(
            _train_until_saved,
            train_loop_config={"folder": str(tmp_path), "drain": leaving.node_id},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            # No failure is allowed: a node that is taken away is counted apart.
            run_config=RunConfig(storage_path=str(tmp_path / "ray"), failure_config=FailureConfig(0)),
        )
        fit = threading.Thread(target=trainer.fit, daemon=True)
        fit.start()
        _wait_for(tmp_path / "saved-0.json", seconds=240)
        cluster.add_node(num_cpus=1)  # as an autoscaler would; it must be called in the main thread
        fit.join(timeout=240)
        assert not fit.is_alive()
    finally:
        ray.shutdown()
        cluster.shutdown()
    saved = [json.loads((tmp_path / f"saved-{rank}.json").read_text()) for rank in range(2)]
    assert saved[0]["step"] == saved[1]["step"]
    assert {one["node"] for one in saved} >= {leaving.node_id}
    again = [json.loads((tmp_path / f"again-{rank}.json").read_text()) for rank in range(2)]
    assert leaving.node_id not in {one["node"] for one in again}


def _wait_for(file: Path, seconds: float) -> None:
    given_up = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < given_up, f"{file.name} was not written in {seconds} s"
        time.sleep(0.2)


def _train_until_saved(task: dict[str, Any]) -> None:
    """Steps of a tenth of a second; rank 0 has a node drained in the fifth. A second start ends at once."""
    import ray
    import torch.distributed as dist

    rank = dist.get_rank()
    node = ray.get_runtime_context().get_node_id()
    if Path(task["folder"], f"saved-{rank}.json").exists():
        Path(task["folder"], f"again-{rank}.json").write_text(json.dumps({"node": node}))
        return
    watch = PreemptionWatch(every_seconds=0.5)
    for step in range(6000):
        if step == 5 and rank == 0:
            _drain(task["drain"], seconds=15)
        time.sleep(0.1)
        if watch.imminent():
            facts = json.dumps({"node": node, "step": step})
            Path(task["folder"], f"saved-{rank}.json").write_text(facts)


def _drain(node_id: str, seconds: float) -> None:
    """What a spot node's notice leads to: Ray is told that the node goes at that time."""
    import ray
    from ray.core.generated import autoscaler_pb2

    accepted, reason = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address).drain_node(
        node_id,
        autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
        "announced by a test",
        int((time.time() + seconds) * 1000),
    )
    assert accepted, reason
