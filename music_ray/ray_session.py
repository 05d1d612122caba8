"""Reaching Ray: a running cluster where an address is given, else a private local one.

A local Ray listens on 127.0.0.1 alone and asks for a token, so that nobody else on the machine or the
network can run code through it. Ray 2.60 turns token authentication on for a cluster that it starts;
setting RAY_AUTH_MODE after `import ray` would reach its server but not this process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from music_ray.config import EngineConfig, RunConfig
from music_ray.config.labels import shown
from music_ray.errors import EnvironmentLacksError
from music_ray.progress import quieten_libraries, say
from music_ray.prompts import own


def ensure_ray(config: RunConfig) -> None:
    """Connects to Ray once in this process; later calls return at once.

    Raises:
        EnvironmentLacksError: the cluster at the address can't be reached.
    """
    quieten_libraries()
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    if not address:
        # Ray replaces 127.0.0.1 by the machine's own address and listens on all of its interfaces, unless
        # it is told that it makes no cluster; it reads that when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return
    if address:
        _connect(address, config.ray.worker_logs)
        return
    say("ray: starting a local Ray")
    ray.init(
        address="local",
        num_cpus=config.ray.num_cpus,
        include_dashboard=False,
        object_store_memory=int(config.ray.object_store_gib * 2**30),
        logging_level=logging.ERROR,
        log_to_driver=config.ray.worker_logs,
        _node_ip_address="127.0.0.1",
    )


def _connect(address: str, worker_logs: bool) -> None:
    import ray

    say(f"ray: connecting to {address}")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=worker_logs)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentLacksError(
            f"no Ray cluster answers at {address} ({str(error).strip().splitlines()[0]}): start it, correct "
            "ray.address or RAY_ADDRESS, or unset both to run on this machine"
        ) from None


def check_resources(
    wanted: dict[str, float], what: str, remedy: str, labels: Mapping[str, str] | None = None
) -> None:
    """Refuses at once what the cluster could never place, where waiting would help nobody.

    Args:
        wanted: resources in Ray's names, e.g. {"CPU": 2.0, "GPU": 1.0}.
        what: what asks for them, for the message.
        remedy: what the user can change.
        labels: what the nodes must have that count; all nodes count without.

    Raises:
        EnvironmentLacksError: the cluster has fewer, and its autoscaler may not add them.
    """
    there = largest_cluster(labels)
    where = f" on nodes with {shown(labels)}" if labels else ""
    for name, amount in wanted.items():
        if (has := there.get(name, 0.0)) < amount:
            raise EnvironmentLacksError(
                f"{what} asks for {amount:g} {name}s, the cluster has {has:g}{where}: {remedy}"
            )


def check_pool(engine: EngineConfig, key: str, task: str) -> None:
    """Refuses at once a pool of engines that the cluster could never place, and one CPU beside them.

    That CPU must stay free: engines that hold all of them would wait for ever for what they are to work on.

    Args:
        engine: the pool.
        key: where it is configured, e.g. 'engine'.
        task: what the extra CPU does, e.g. 'read seeds'.

    Raises:
        EnvironmentLacksError: the cluster has fewer CPUs or GPUs, or no node with the pool's labels, and its
            autoscaler may not add them.
    """
    check_labels(engine.node_labels, f"{key}.node_labels")
    number = engine.min_engines
    check_resources(
        {"CPU": number * engine.cpus_per_engine + 1, "GPU": number * engine.gpus_per_engine},
        f"{key}.min_engines ({number}), with 1 CPU to {task},",
        f"lower {key}.min_engines, {key}.cpus_per_engine or {key}.gpus_per_engine, raise ray.num_cpus, or "
        "add nodes",
        engine.node_labels,
    )


def check_labels(labels: dict[str, str], key: str) -> None:
    """Refuses at once node labels that no node of a cluster without an autoscaler has.

    What labels an autoscaler's nodes would have, Ray does not tell.

    Args:
        labels: what every node must have that is to be used; nothing is checked where they are empty.
        key: where they are configured, e.g. 'engine.node_labels'.

    Raises:
        EnvironmentLacksError: no node has all of them, and none can be added.
    """
    if not labels or _possible_resources():
        return
    if problem := label_problem(labels, key, [node["Labels"] for node in _nodes()]):
        raise EnvironmentLacksError(problem)


def label_problem(labels: Mapping[str, str], key: str, nodes: Sequence[Mapping[str, str]]) -> str | None:
    """Why labels can't be had of nodes that will stay the same; None where one node has all of them.

    Args:
        key: where they are configured.
        nodes: the labels of each node.
    """
    if any(labels.items() <= there.items() for there in nodes):
        return None
    return (
        f"{key} asks for nodes with {shown(labels)}, and none of the cluster's {len(nodes)} has that: start "
        f"one with `ray start --labels {shown(labels)}`, or leave {key} empty"
    )


def largest_cluster(labels: Mapping[str, str] | None = None) -> dict[str, float]:
    """Resources that are there, or that an autoscaler says it may add up to.

    Args:
        labels: only nodes that have them count among those that are there. What an autoscaler may add counts
            whole: Ray does not tell the labels of that.
    """
    there, possible = present_resources(labels), _possible_resources()
    return {
        name: max(there.get(name, 0.0), possible.get(name, 0.0)) for name in there.keys() | possible.keys()
    }


def present_resources(labels: Mapping[str, str] | None = None) -> dict[str, float]:
    """Resources of the nodes that are there and have all these labels, in Ray's names."""
    import ray

    if not labels:
        return {name: float(amount) for name, amount in ray.cluster_resources().items()}
    total: dict[str, float] = {}
    for node in _nodes():
        if labels.items() <= node["Labels"].items():
            for name, amount in node["Resources"].items():
                total[name] = total.get(name, 0.0) + amount
    return total


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _possible_resources() -> dict[str, float]:
    """What an autoscaler may grow the cluster to; empty where there is none."""
    from ray._private.state import state

    possible = state.get_max_resources_from_cluster_config() or {}
    return {name: float(amount) for name, amount in possible.items()}


def worker_config(config: RunConfig) -> RunConfig:
    """The configuration for processes that may start in another working directory, on another machine.

    Paths are made absolute, and an own contrast template goes along as its text.

    Raises:
        InputError: the template's file is missing.
    """
    updates: dict[str, object] = {}
    if "://" not in config.runs_dir:
        updates["runs_dir"] = _absolute(config.runs_dir)
    updates["engine"] = _with_absolute_paths(config.engine)
    if config.user.engine is not None:
        updates["user"] = config.user.model_copy(update={"engine": _with_absolute_paths(config.user.engine)})
    if os.path.isdir(model := _absolute(config.train.base_model)):
        updates["train"] = config.train.model_copy(update={"base_model": model})
    if template := config.contrast.template:
        updates["contrast"] = config.contrast.model_copy(update={"template": own.inlined(template)})
    return config.model_copy(update=updates)


def _with_absolute_paths(engine: EngineConfig) -> EngineConfig:
    if engine.endpoint is not None:  # its model is a name at the endpoint, whatever lies here under it
        tokenizer = engine.endpoint.tokenizer
        if tokenizer is None or not os.path.isdir(path := _absolute(tokenizer)):
            return engine
        return engine.model_copy(update={"endpoint": engine.endpoint.model_copy(update={"tokenizer": path})})
    if os.path.isdir(path := _absolute(engine.model)):
        return engine.model_copy(update={"model": path})
    return engine


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
