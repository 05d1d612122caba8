"""What a cluster's nodes hold, what its autoscaler may add, and how much of a kind fits on them.

Ray's own answer to what an autoscaler may add (the cluster's configuration in its store) is written by
managed platforms alone. With `ray up` the autoscaler's file says it, to those who are on the head, where
jobs' drivers are. With KubeRay nobody says it: then anything may be added, and is waited for.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Resources = Mapping[str, float]
"""In Ray's names: {"CPU": 8.0, "GPU": 1.0}."""

_CONFIG_OPTION = "--autoscaling-config="
_STATUS_SECONDS = 10.0
_WAITING_SECONDS = 60.0
_UNBOUNDED = 10**6


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind that an autoscaler may start."""

    resources: Resources
    most: int
    """How many of them there may be at a time."""
    labels: Mapping[str, str] | None = None
    """What its nodes are labelled with; None where that is not known."""

    def may_have(self, labels: Mapping[str, str]) -> bool:
        """Whether its nodes have all these labels, as far as it is known."""
        return self.labels is None or labels.items() <= self.labels.items()


def how_many_fit(each: Resources, nodes: Iterable[Resources], most: int) -> int:
    """How many equal parts find room, each of them on one node.

    Args:
        each: what a part asks for; something of it must be above 0.
        most: it is not counted further.
    """
    wanted = {name: amount for name, amount in each.items() if amount > 0}
    fit = 0
    for node in nodes:
        # The tiny share lets 3 x 0.1 fit 0.3.
        fit += min(math.floor(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items())
        if fit >= most:
            return most
    return fit


def fit_beside_a_cpu(each: Resources, nodes: Sequence[Resources], most: int) -> int:
    """The same, with one CPU of one node left free."""
    best = 0
    for index, node in enumerate(nodes):
        if node.get("CPU", 0.0) >= 1.0:
            rest = {**node, "CPU": node["CPU"] - 1.0}
            best = max(best, how_many_fit(each, [*nodes[:index], rest, *nodes[index + 1 :]], most))
        if best >= most:
            break
    return best


def nodes_of(groups: Iterable[NodeGroup], labels: Mapping[str, str], most: int) -> list[Resources]:
    """The nodes that groups with these labels could have at a time, at most so many of each."""
    return [
        group.resources for group in groups if group.may_have(labels) for _ in range(min(group.most, most))
    ]


def totals(groups: Iterable[NodeGroup]) -> dict[str, float]:
    """What all nodes of all groups hold together."""
    total: dict[str, float] = {}
    for group in groups:
        for name, amount in group.resources.items():
            total[name] = total.get(name, 0.0) + amount * group.most
    return total


# -- asking Ray ------------------------------------------------------------------------------------


def autoscaled_groups() -> list[NodeGroup] | None:
    """What the autoscaler of the cluster that this process is connected to may start.

    Returns:
        None where there is no autoscaler; an empty list where there is one that does not say it.
    """
    from ray._private.state import state

    config = state.get_cluster_config()
    if config is not None and config.node_group_configs:
        return [_group_of(group) for group in config.node_group_configs]
    return _groups_of_file() if _has_autoscaler() else None


def _group_of(group: Any) -> NodeGroup:
    most = _UNBOUNDED if group.max_count == -1 else group.max_count
    return NodeGroup({name: float(amount) for name, amount in group.resources.items()}, most)


def _has_autoscaler() -> bool:
    """Whether an autoscaler has reported, and nodes are of kinds: without one Ray's monitor reports as well,
    but a node that a person has started has no kind."""
    status = _status()
    has_kinds = any(node.ray_node_type_name for node in status.cluster_resource_state.node_states)
    return has_kinds and status.autoscaling_state.autoscaler_state_version > 0


def _status() -> Any:
    import ray
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    # mypy does not see into either: they are generated.
    client = _raylet.GcsClient(address=ray.get_runtime_context().gcs_address)  # type: ignore[attr-defined]
    reply = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    reply.ParseFromString(client.get_cluster_status(timeout_s=_STATUS_SECONDS))
    return reply


def _groups_of_file() -> list[NodeGroup]:
    """By the file of the autoscaler that runs on this machine for this cluster; empty without one."""
    import psutil
    import ray

    mine = f"--gcs-address={ray.get_runtime_context().gcs_address}"
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        files = [word.removeprefix(_CONFIG_OPTION) for word in words if word.startswith(_CONFIG_OPTION)]
        if files and mine in words:
            return _groups_in(os.path.expanduser(files[0]))
    return []


def _groups_in(file: str) -> list[NodeGroup]:
    import yaml

    try:
        with open(file, encoding="utf-8") as handle:
            config = yaml.safe_load(handle)
        kinds = config["available_node_types"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # not ours to read, or of another form
        return []
    workers = int(config.get("max_workers") or 0)
    groups = []
    for name, kind in kinds.items():
        is_head = name == config.get("head_node_type")
        most = min(int(kind.get("max_workers", workers) or 0), workers) + is_head
        resources = {key: float(amount) for key, amount in (kind.get("resources") or {}).items()}
        if most and not resources:  # known once such a node is there
            return []
        if most:
            groups.append(NodeGroup(resources, most, kind.get("labels") or {}))
    return groups


class Waiting:
    """Says now and then, while nothing has started, what the autoscaler finds no node for.

    It may be able to later, when other work has ended, so that this is no error.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked = time.monotonic()

    def news(self) -> list[str]:
        """Sentences for the user; mostly none."""
        from ray.exceptions import RayError

        if time.monotonic() - self._asked < _WAITING_SECONDS:
            return []
        self._asked = time.monotonic()
        try:
            state = _status().autoscaling_state
        except RayError:  # a busy head: the next time
            return []
        gangs = [one for gang in state.infeasible_gang_resource_requests for one in gang.requests]
        return [
            f"{self._name}: the autoscaler has no node for {what}: none of its kinds is so large, or no more "
            "of it may be started; lower what is asked for, or raise the cluster's limits"
            for what in _in_words([*state.infeasible_resource_requests, *gangs])
        ]


def _in_words(requests: Iterable[Any]) -> list[str]:
    """Resource requests, the equal ones as one: '2 x (1 CPU, 8 GPU)'."""
    bundles = Counter(
        ", ".join(f"{amount:g} {name}" for name, amount in sorted(one.resources_bundle.items()))
        for one in requests
    )
    return [f"{count} x ({bundle})" for bundle, count in bundles.items()]
