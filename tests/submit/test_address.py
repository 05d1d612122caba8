"""Which cluster: the option, then Ray's variables, never a cluster of its own."""

import pytest

from music_ray.errors import ConfigError
from music_ray.submit.address import cluster_address, shown


def test_the_option_goes_before_rays_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address(None) == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://there:8265")
    assert cluster_address(None) == "http://there:8265"
    assert cluster_address("http://here:1") == "http://here:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    assert cluster_address(None) == "10.0.0.1:6379"


def test_the_dashboards_port_needs_no_scheme() -> None:
    assert cluster_address("127.0.0.1:8265") == "http://127.0.0.1:8265"
    assert cluster_address("127.0.0.1:6379") == "127.0.0.1:6379"


def test_without_an_address_nothing_is_started() -> None:
    with pytest.raises(ConfigError) as caught:
        cluster_address(None)
    assert str(caught.value) == (
        "no address of a Ray cluster: give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS. `ray "
        "start --head` starts a cluster on this machine, at http://127.0.0.1:8265; `ray dashboard "
        "CLUSTER.yaml` or `kubectl port-forward service/NAME-head-svc 8265` bring another's there"
    )


def test_a_cluster_of_the_command_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS \(local\) would be a cluster of this command alone"):
        cluster_address(None)


def test_a_password_is_not_shown() -> None:
    assert shown("https://me:secret@host:8265") == "https://host:8265"
