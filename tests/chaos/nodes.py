"""The nodes of a local cluster, which can be lost and replaced: a head without CPUs, and the others.

Nodes are made and removed in the main thread: Ray can't do it elsewhere.
"""

from __future__ import annotations

from typing import Any

import psutil


class Nodes:
    """A cluster of raylets on this machine. Use it as a context manager."""

    def __init__(self, number: int, cpus: int) -> None:
        """
        Args:
            number: nodes besides the head.
            cpus: CPUs that each of them offers, whatever the machine has.
        """
        self._number, self._cpus = number, cpus
        self._cluster: Any = None
        self.alive: list[Any] = []
        """Nodes besides the head, in the order in which they joined."""

    def __enter__(self) -> Nodes:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        for _ in range(self._number):
            self.join()
        self._cluster.wait_for_nodes()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return str(self._cluster.address)

    @property
    def head(self) -> Any:
        """The node that carries nothing."""
        return self._cluster.head_node

    def join(self) -> Any:
        """Another node; returns once Ray knows it."""
        node = self._cluster.add_node(num_cpus=self._cpus)
        self.alive.append(node)
        return node

    def lose(self, node: Any) -> None:
        """kill -9 of all that Ray has started for this node."""
        self.alive.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def workers(self, name: str, node: Any | None = None) -> list[psutil.Process]:
        """Ray's worker processes with this in their name, on one node or on all, by their ids."""
        found = [
            process
            for one in ([node] if node is not None else self.alive)
            for process in _below(one.all_processes["raylet"][0].process.pid)
            if name in _command(process)
        ]
        return sorted(found, key=lambda process: process.pid)


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # gone meanwhile
        return ""
