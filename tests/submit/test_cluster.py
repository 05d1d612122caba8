"""Ray's client against a job server: what is sent, and what its refusals become."""

import socket

import pytest

from music_ray.errors import EnvironmentLacksError
from music_ray.submit.cluster import Cluster, NoTokenError, UnreachableError
from music_ray.submit.job import Job
from music_ray.submit.request import Request
from tests.submit.job_server import TOKEN, JobServer

REQUEST = Request(
    "a", "s3://b/a", ("python", "-m", "music_ray", "run", "a.yaml"), {"T": "value"}, 1.5, {"music_ray_run": "s3://b/a"}
)  # fmt: skip


@pytest.fixture
def archive(tmp_path) -> str:
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    return str(tmp_path / "a.zip")


def test_a_job_is_submitted_with_all_that_was_asked(server: JobServer, archive: str) -> None:
    assert Cluster(server.address).submit(REQUEST, archive, 4) == "music-ray-a-4"
    sent = server.jobs["music-ray-a-4"].request
    uri = sent["runtime_env"].pop("working_dir")
    assert uri.startswith("gcs://_ray_pkg_") and uri.endswith(".zip")
    assert sent == {
        "entrypoint": "python -m music_ray run a.yaml",
        "submission_id": "music-ray-a-4",
        "runtime_env": {"env_vars": {"T": "value"}},
        "metadata": {"music_ray_run": "s3://b/a"},
        "entrypoint_num_cpus": 1.5,
    }
    assert server.uploads == [b"PK\x05\x06" + bytes(18)]


def test_an_id_that_is_taken_meanwhile_gives_the_next_one(server: JobServer, archive: str) -> None:
    server.add("music-ray-a-1", "s3://b/a")
    server.add("music-ray-a-2", "s3://b/a")
    assert Cluster(server.address).submit(REQUEST, archive, 1) == "music-ray-a-3"
    for number in range(3, 8):
        server.add(f"music-ray-a-{number}", "s3://b/a")
    with pytest.raises(EnvironmentLacksError, match=r"^5 ids from music-ray-a-3 on are taken: "):
        Cluster(server.address).submit(REQUEST, archive, 3)


def test_jobs_as_the_server_tells_them(server: JobServer) -> None:
    served = server.add("music-ray-a-1", "s3://b/a")
    served.request["runtime_env"] = {"env_vars": {"T": "a secret"}}
    served.end("FAILED", 2, "JOB_ENTRYPOINT_COMMAND_ERROR")
    cluster = Cluster(server.address)
    job = Job(
        "music-ray-a-1", "FAILED", "python -m music_ray run x.yaml", "s3://b/a", 1_700_000_000.0, None, 2,
        "JOB_ENTRYPOINT_COMMAND_ERROR",
    )  # fmt: skip
    assert cluster.jobs() == [job]  # without the drivers that were not submitted
    assert cluster.job("music-ray-a-1") == job
    assert cluster.job("music-ray-a-2") is None
    assert "a secret" not in repr(cluster.jobs())


def test_the_address_is_the_one_that_was_given(server: JobServer, monkeypatch) -> None:
    """In Ray's own client the environment goes before the argument."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert Cluster(server.address).jobs() == []


def test_without_the_token_there_is_one_clear_message(server: JobServer) -> None:
    server.token = TOKEN
    with pytest.raises(NoTokenError) as caught:
        Cluster(server.address).jobs()
    assert str(caught.value) == (
        f"the cluster at {server.address} asks for its token: set RAY_AUTH_MODE=token, and give the token in "
        "RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names or in ~/.ray/auth_token (`ray "
        "get-auth-token` prints it on a machine that has it)"
    )
    assert caught.value.exit_code == 2


def test_nothing_at_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UnreachableError) as caught:
            Cluster(address).jobs()
    assert str(caught.value) == (
        f"no job server of Ray answers at {address} (Failed to connect to Ray at address: {address}): start "
        "the cluster, correct --address or RAY_API_SERVER_ADDRESS (http://HOST:8265), or forward "
        "the port again"
    )


def test_a_cluster_that_was_away_is_reached_again(server: JobServer, archive: str) -> None:
    cluster = Cluster(server.address)
    assert cluster.jobs() == []
    server.stop()
    for ask in (cluster.jobs, lambda: cluster.job("x"), lambda: cluster.submit(REQUEST, archive, 1)):
        with pytest.raises(UnreachableError):
            ask()
    server.start()
    assert cluster.jobs() == []


def test_a_head_that_has_just_started_is_one_that_does_not_answer(server: JobServer, archive: str) -> None:
    server.refuse_submissions = 1
    cluster = Cluster(server.address)
    with pytest.raises(
        UnreachableError, match=r"\(Request failed with status code 500: No available agent to"
    ):
        cluster.submit(REQUEST, archive, 1)
    assert cluster.submit(REQUEST, archive, 1) == "music-ray-a-1"
