"""Reaching Ray: what it could never place, paths for other processes, and who may connect."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from music_ray import ray_session
from music_ray.capacity import NodeGroup
from music_ray.config import RunConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import EnvironmentLacksError


def config_of(*overrides: str) -> RunConfig:
    return resolve_config(apply_overrides({"name": "r"}, overrides))


def on_nodes(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    """A cluster of these nodes without an autoscaler."""
    there = [{"Alive": True, "Labels": {}, "Resources": resources} for resources in nodes]
    monkeypatch.setattr(ray_session, "_nodes", lambda: there)
    monkeypatch.setattr(ray_session, "autoscaled_groups", lambda: None)


def test_what_the_cluster_could_never_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_nodes(monkeypatch, {"CPU": 2.0, "memory": 1e9})
    ray_session.check_resources({"CPU": 2.0, "GPU": 0.0}, "x", "y")
    with pytest.raises(EnvironmentLacksError) as caught:
        ray_session.check_resources({"CPU": 2.0, "GPU": 8.0}, "engine.min_engines (8)", "lower it")
    assert str(caught.value) == "engine.min_engines (8) asks for 8 GPUs, the cluster has 0: lower it"
    with pytest.raises(EnvironmentLacksError, match=r"^x asks for 2\.5 CPUs, the cluster has 2: y$"):
        ray_session.check_resources({"CPU": 2.5}, "x", "y")


def test_engines_must_leave_a_cpu_to_read_what_they_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    on_nodes(monkeypatch, {"CPU": 2.0})
    ray_session.check_pool(config_of().engine, "engine", "read seeds")
    two = config_of("engine.min_engines=2", "engine.max_engines=2").engine
    with pytest.raises(
        EnvironmentLacksError, match=r"min_engines \(2\), with 1 CPU to read seeds, asks for 3"
    ):
        ray_session.check_pool(two, "engine", "read seeds")


def test_a_pool_that_is_too_large_names_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = config_of("engine.min_engines=2", "engine.max_engines=2", "engine.cpus_per_engine=1.5").engine
    on_nodes(monkeypatch, {"CPU": 4.0})
    ray_session.check_pool(engine, "engine", "read seeds")
    on_nodes(monkeypatch, {"CPU": 3.0})
    with pytest.raises(EnvironmentLacksError) as caught:
        ray_session.check_pool(engine, "pairs.judge.engine", "read pairs")
    assert str(caught.value) == (
        "pairs.judge.engine.min_engines (2), with 1 CPU to read pairs, asks for 4 CPUs, the cluster has 3: "
        "lower pairs.judge.engine.min_engines, pairs.judge.engine.cpus_per_engine or "
        "pairs.judge.engine.gpus_per_engine, raise ray.num_cpus, or add nodes"
    )
    on_nodes(monkeypatch, {"CPU": 9.0, "GPU": 1.0})
    on_gpus = engine.model_copy(update={"gpus_per_engine": 1.0})
    with pytest.raises(EnvironmentLacksError, match=r"to read seeds, asks for 2 GPUs, the cluster has 1: "):
        ray_session.check_pool(on_gpus, "engine", "read seeds")


def test_labels_must_all_be_on_one_node() -> None:
    wanted = {"zone": "a", "music-ray/group": "generation"}
    assert ray_session.label_problem({"zone": "a"}, "k", [{"zone": "b"}, {"zone": "a", "x": "y"}]) is None
    assert ray_session.label_problem(wanted, "k", [{}, wanted | {"x": "y"}]) is None
    parted = [
        {"zone": "a"},
        {"music-ray/group": "generation"},
        {"zone": "b", "music-ray/group": "generation"},
    ]
    assert ray_session.label_problem(wanted, "engine.node_labels", parted) == (
        "engine.node_labels asks for nodes with music-ray/group=generation,zone=a, and none of the cluster's "
        "3 has that: start one with `ray start --labels music-ray/group=generation,zone=a`, or leave "
        "engine.node_labels empty"
    )


NODES = [
    {"Alive": True, "Labels": {"zone": "a"}, "Resources": {"CPU": 2.0, "GPU": 1.0}},
    {"Alive": True, "Labels": {"zone": "a", "x": "y"}, "Resources": {"CPU": 1.0}},
    {"Alive": True, "Labels": {"zone": "b"}, "Resources": {"CPU": 64.0}},
]


def test_only_nodes_with_the_labels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that hold all CPUs of the only nodes that they may use would wait for ever for their reader."""
    monkeypatch.setattr(ray_session, "_nodes", lambda: NODES)
    monkeypatch.setattr(ray_session, "autoscaled_groups", lambda: None)
    assert ray_session.present_resources({"zone": "a"}) == {"CPU": 3.0, "GPU": 1.0}
    engine = config_of("engine.node_labels.zone=a", "engine.cpus_per_engine=2").engine
    ray_session.check_pool(engine, "engine", "read seeds")
    wider = config_of("engine.node_labels.zone=a", "engine.cpus_per_engine=3").engine
    with pytest.raises(
        EnvironmentLacksError, match=r"asks for 4 CPUs, the cluster has 3 on nodes with zone=a: lower"
    ):
        ray_session.check_pool(wider, "engine", "read seeds")
    with pytest.raises(EnvironmentLacksError, match=r"^engine\.node_labels asks for nodes with zone=c, and"):
        ray_session.check_pool(config_of("engine.node_labels.zone=c").engine, "engine", "read seeds")


def test_what_an_autoscaler_may_add_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "_nodes", lambda: NODES)
    labels = {"zone": "c"}
    monkeypatch.setattr(ray_session, "autoscaled_groups", lambda: [NodeGroup({"CPU": 4.0}, 2, labels)])
    assert ray_session.largest_cluster({"zone": "c"}) == {"CPU": 8.0}
    assert ray_session.largest_cluster({"zone": "a"}) == {"CPU": 3.0, "GPU": 1.0}
    assert ray_session.largest_cluster() == {"CPU": 67.0, "GPU": 1.0}
    ray_session.check_pool(config_of("engine.node_labels.zone=c").engine, "engine", "read seeds")
    with pytest.raises(EnvironmentLacksError, match=r"^engine\.node_labels asks for nodes with zone=d, and"):
        ray_session.check_pool(config_of("engine.node_labels.zone=d").engine, "engine", "read seeds")
    # A managed platform says what it may add, and not how that is labelled.
    monkeypatch.setattr(ray_session, "autoscaled_groups", lambda: [NodeGroup({"CPU": 4.0}, 2)])
    ray_session.check_pool(config_of("engine.node_labels.zone=d").engine, "engine", "read seeds")


def test_an_engine_must_find_its_room_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of two CPUs are no node of three: Ray would wait for one for ever."""
    wide = config_of("engine.cpus_per_engine=3").engine
    on_nodes(monkeypatch, {"CPU": 2.0}, {"CPU": 2.0})
    with pytest.raises(EnvironmentLacksError) as caught:
        ray_session.check_pool(wide, "engine", "read seeds")
    assert str(caught.value) == (
        "each engine asks for 3 CPUs on one node, and no node has so much: lower engine.min_engines, "
        "engine.cpus_per_engine or engine.gpus_per_engine, raise ray.num_cpus, or add nodes"
    )
    on_nodes(monkeypatch, {"CPU": 3.0}, {"CPU": 1.0})
    ray_session.check_pool(wide, "engine", "read seeds")
    on_nodes(monkeypatch, {"CPU": 3.0}, {"CPU": 0.5}, {"CPU": 0.5})
    with pytest.raises(
        EnvironmentLacksError, match="the nodes have room, beside the CPU that stays free, for 0 of 1: lower"
    ):
        ray_session.check_pool(wide, "engine", "read seeds")


def test_an_autoscaler_that_does_not_say_what_it_may_add_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that begins with its head alone, which carries nothing."""
    on_nodes(monkeypatch, {})
    with pytest.raises(EnvironmentLacksError, match="asks for 2 CPUs, the cluster has 0: lower"):
        ray_session.check_pool(config_of().engine, "engine", "read seeds")
    monkeypatch.setattr(ray_session, "autoscaled_groups", list)
    on_gpus = config_of("engine.gpus_per_engine=8", "engine.tensor_parallel_size=8").engine
    ray_session.check_pool(on_gpus, "engine", "read seeds")
    monkeypatch.setattr(ray_session, "autoscaled_groups", lambda: [NodeGroup({"CPU": 4.0}, 1)])
    with pytest.raises(EnvironmentLacksError, match="asks for 8 GPUs, the cluster has 0: lower"):
        ray_session.check_pool(on_gpus, "engine", "read seeds")


def test_paths_for_other_processes_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    config = ray_session.worker_config(config_of("engine.model=model", "train.base_model=~/model"))
    assert config.runs_dir == f"{tmp_path}/runs"
    assert config.engine.model == config.train.base_model == f"{tmp_path}/model"
    assert ray_session.worker_config(config_of("runs_dir=~/x")).runs_dir == f"{tmp_path}/x"


def test_names_that_are_no_paths_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of("runs_dir=s3://bucket/runs", "engine.model=demo:smollm2-135m-instruct")
    assert ray_session.worker_config(config) == config


_LOCAL_RAY = """
import json, os, sys
if sys.argv[1:]:
    os.environ["RAY_ADDRESS"] = sys.argv[1]
from music_ray.config.load import resolve_config
from music_ray.ray_session import ensure_ray
config = resolve_config({"name": "r", "ray": {"num_cpus": 1, "object_store_gib": 0.1}})
ensure_ray(config)
ensure_ray(config)
import psutil, ray
from ray._raylet import GcsClient
me = psutil.Process()
listening = {
    connection.laddr.ip.removeprefix("::ffff:")
    for process in [me, *me.children(recursive=True)]
    for connection in process.net_connections(kind="inet")
    if connection.status == psutil.CONN_LISTEN
}
facts = {
    "mode": os.environ.get("RAY_AUTH_MODE"),
    "token": os.path.getsize(os.path.expanduser("~/.ray/auth_token")),
    "listening": sorted(listening),
    "cpus": ray.cluster_resources()["CPU"],
    "address": ray.get_runtime_context().gcs_address,
}
print(json.dumps(facts), flush=True)
sys.stdin.readline()
"""
_STRANGER = """
import os, sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", namespace=None, timeout=5)
except Exception as error:
    print(type(error).__name__, error)
else:
    print("connected")
"""


@pytest.mark.slow
@pytest.mark.parametrize("address", [[], ["local"]])  # the second is Ray's own word for it
def test_a_local_ray_listens_here_alone_and_asks_for_a_token(tmp_path: Path, address: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    local = subprocess.Popen(
        [sys.executable, "-c", _LOCAL_RAY, *address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert local.stdout is not None
        assert local.stdout.readline() == "ray: starting a local Ray\n"
        facts = json.loads(local.stdout.readline())
        assert facts["listening"] == ["127.0.0.1"]
        assert (facts["mode"], facts["cpus"]) == ("token", 1.0)
        assert facts["token"] >= 32

        def stranger(**changes: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", _STRANGER, facts["address"]],
                env=environment | changes, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            return done.stdout

        assert "InvalidAuthToken" in stranger(RAY_AUTH_MODE="disabled", HOME=str(tmp_path / "other"))
        assert stranger(RAY_AUTH_MODE="token") == "connected\n"
    finally:
        local.communicate("\n", timeout=60)
