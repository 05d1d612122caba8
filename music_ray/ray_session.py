"""Reaching Ray: a running cluster where an address is given, else a private local one.

A local Ray listens on 127.0.0.1 alone and asks for a token, so that nobody else on the machine or the
network can run code through it. Ray 2.60 turns token authentication on for a cluster that it starts;
setting RAY_AUTH_MODE after `import ray` would reach its server but not this process.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from music_ray.capacity import autoscaled_groups, fit_beside_a_cpu, how_many_fit, nodes_of, totals
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
    address = running_cluster(config)
    if address is None:
        # Ray replaces 127.0.0.1 by the machine's own address and listens on all of its interfaces, unless
        # it is told that it makes no cluster; it reads that when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # gloo listens on the address that the machine's name has, unless it is told which interface to take.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import ray

    if ray.is_initialized():
        return
    if address is not None:
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


def running_cluster(config: RunConfig) -> str | None:
    """The address of the cluster that is to be used; None where music_ray starts a Ray of its own.

    `local` is Ray's word for starting one, which would listen on all interfaces.
    """
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    return None if not address or address == "local" else address


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
    what = f"{key}.min_engines ({number}), with 1 CPU to {task},"
    remedy = (
        f"lower {key}.min_engines, {key}.cpus_per_engine or {key}.gpus_per_engine, raise ray.num_cpus, or "
        "add nodes"
    )
    each = {"CPU": engine.cpus_per_engine, "GPU": float(engine.gpus_per_engine)}
    wanted = {"CPU": number * engine.cpus_per_engine + 1, "GPU": number * each["GPU"]}
    check_resources(wanted, what, remedy, engine.node_labels)
    check_each(each, number, "engine", remedy, engine.node_labels, beside_a_cpu=True)


def check_each(
    each: Mapping[str, float],
    number: int,
    what: str,
    remedy: str,
    labels: Mapping[str, str] | None = None,
    *,
    beside_a_cpu: bool = False,
) -> None:
    """Refuses at once parts that the cluster has enough for in all, but of which each must be on one node.

    Args:
        each: what one of them asks for, in Ray's names.
        what: what one of them is, e.g. 'engine'.
        remedy: what the user can change.
        labels: what the nodes must have that count; all nodes count without.
        beside_a_cpu: one CPU more must stay free.

    Raises:
        EnvironmentLacksError: fewer find room, and the autoscaler may not add nodes that change it.
    """
    groups = autoscaled_groups()
    if groups == [] or not any(each.values()):  # whatever is needed may be added
        return
    there = [node["Resources"] for node in _nodes() if (labels or {}).items() <= node["Labels"].items()]
    possible = nodes_of(groups or (), labels or {}, number + 1)
    count = fit_beside_a_cpu if beside_a_cpu else how_many_fit
    fit = max(count(each, there, number), count(each, possible, number))
    if fit >= number:
        return
    asks = " and ".join(f"{amount:g} {name}s" for name, amount in each.items() if amount)
    where = f" with {shown(labels)}" if labels else ""
    if not how_many_fit(each, [*there, *possible], 1):
        raise EnvironmentLacksError(
            f"each {what} asks for {asks} on one node, and no node{where} has so much: {remedy}"
        )
    beside = ", beside the CPU that stays free," if beside_a_cpu else ""
    raise EnvironmentLacksError(
        f"each {what} asks for {asks} on one node, and the nodes{where} have room{beside} for {fit} of "
        f"{number}: {remedy}"
    )


def check_labels(labels: dict[str, str], key: str) -> None:
    """Refuses at once node labels that no node has, and none that an autoscaler says it may add.

    Args:
        labels: what every node must have that is to be used; nothing is checked where they are empty.
        key: where they are configured, e.g. 'engine.node_labels'.

    Raises:
        EnvironmentLacksError: no node has all of them, and none can be added.
    """
    groups = autoscaled_groups() if labels else []
    if groups == [] or any(group.may_have(labels) for group in groups or ()):
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
        labels: only nodes that have them count. Of what an autoscaler may add whose labels are not known, all
            counts.
    """
    there, possible = present_resources(labels), _possible_resources(labels)
    return {
        name: max(there.get(name, 0.0), possible.get(name, 0.0)) for name in there.keys() | possible.keys()
    }


def present_resources(labels: Mapping[str, str] | None = None) -> dict[str, float]:
    """Resources of the nodes that are there and have all these labels, in Ray's names."""
    total: dict[str, float] = {}
    for node in _nodes():
        if (labels or {}).items() <= node["Labels"].items():
            for name, amount in node["Resources"].items():
                total[name] = total.get(name, 0.0) + amount
    return total


def is_this_machine() -> bool:
    """Whether the cluster is this machine alone: its nodes know each other by 127.0.0.1."""
    return all(node["NodeManagerAddress"].startswith("127.") for node in _nodes())


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _possible_resources(labels: Mapping[str, str] | None) -> dict[str, float]:
    """What an autoscaler may grow the cluster to; empty where there is none, boundless where it won't say."""
    groups = autoscaled_groups()
    if groups == []:
        return {"CPU": math.inf, "GPU": math.inf}
    return totals(group for group in groups or () if group.may_have(labels or {}))


def read_parquet_in_tasks(context: Any) -> None:
    """Has Ray Data read Parquet with tasks, which are tried again when their node is lost.

    Ray 2.60 would read footers in 32 actors first, a process each, which nobody starts again: a node that is
    lost with one of them ends the job.

    Args:
        context: Ray Data's DataContext.
    """
    context.use_datasource_v2 = False


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
