"""Which cluster a command is meant for. No address is an error: a cluster is never started unasked."""

from __future__ import annotations

import os

from music_ray.errors import ConfigError
from music_ray.public import without_credentials

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where the address is looked for after --address, in Ray's own order."""
_DASHBOARD_PORT = ":8265"


def cluster_address(given: str | None) -> str:
    """The address of the cluster's job server, such as http://127.0.0.1:8265.

    Args:
        given: --address; it goes before the environment (in Ray's own commands the environment wins).

    Raises:
        ConfigError: there is none, or it names no running cluster.
    """
    named = {"--address": given} | {name: os.environ.get(name) for name in ADDRESS_VARIABLES}
    source, address = next(((name, value) for name, value in named.items() if value), ("", None))
    if address is None:
        raise ConfigError(
            "no address of a Ray cluster: give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS. "
            "`ray start --head` starts a cluster on this machine, at http://127.0.0.1:8265; `ray dashboard "
            "CLUSTER.yaml` or `kubectl port-forward service/NAME-head-svc 8265` bring another's there"
        )
    if address == "local":
        raise ConfigError(
            f"{source} (local) would be a cluster of this command alone, which ends with it: start one with "
            "`ray start --head` and give --address http://127.0.0.1:8265"
        )
    # Ray would take HOST:PORT for another of its services, and wait a minute for an answer.
    return f"http://{address}" if "://" not in address and address.endswith(_DASHBOARD_PORT) else address


def shown(address: str) -> str:
    """The address as messages show it, without a password."""
    return without_credentials(address)
