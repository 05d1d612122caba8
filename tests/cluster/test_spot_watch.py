"""The watch for the cloud's notice: real HTTP servers that answer as the clouds' metadata services do."""

import datetime
import http.server
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from tests.cluster.files import script

spot_watch = script("spot_watch")


@pytest.fixture
def metadata():
    """A server whose answers the test sets (path → text; 404 for the rest), and which notes what is asked."""

    class Answers(http.server.BaseHTTPRequestHandler):
        answers: ClassVar[dict[str, str]] = {}
        asked: ClassVar[list[tuple[str, str, dict[str, str]]]] = []
        url: ClassVar[str]

        def do_GET(self) -> None:
            type(self).asked.append((self.command, self.path, dict(self.headers)))
            text = self.answers.get(self.path)
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        do_PUT = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Answers.url = f"http://127.0.0.1:{server.server_port}"
    yield Answers
    server.shutdown()
    server.server_close()


def test_ec2_is_asked_with_a_session_and_its_notice_says_when(metadata) -> None:
    metadata.answers = {"/latest/api/token": "session"}
    assert spot_watch.aws_seconds_left(metadata.url) is None
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    metadata.answers["/latest/meta-data/spot/instance-action"] = (
        f'{{"action": "terminate", "time": "{end:%Y-%m-%dT%H:%M:%SZ}"}}'
    )
    assert 95 < spot_watch.aws_seconds_left(metadata.url) <= 100
    kinds = [(method, path.rpartition("/")[2]) for method, path, _ in metadata.asked]
    assert kinds == [("PUT", "token"), ("GET", "instance-action")] * 2
    assert {key.lower(): value for key, value in metadata.asked[1][2].items()}[
        "x-aws-ec2-metadata-token"
    ] == "session"


def test_a_time_that_is_past_leaves_nothing(metadata) -> None:
    metadata.answers = {
        "/latest/api/token": "session",
        "/latest/meta-data/spot/instance-action": '{"action": "stop", "time": "2020-01-01T00:00:00Z"}',
    }
    assert spot_watch.aws_seconds_left(metadata.url) == 0.0


@pytest.mark.parametrize(("said", "left"), [("FALSE", None), ("TRUE", 25.0)])
def test_compute_engine_says_yes_or_no(metadata, said, left) -> None:
    metadata.answers = {"/computeMetadata/v1/instance/preempted": said}
    assert spot_watch.gcp_seconds_left(metadata.url) == left
    assert {key.lower(): value for key, value in metadata.asked[-1][2].items()}["metadata-flavor"] == "Google"


def test_looks_that_fail_do_not_end_the_watch(capsys) -> None:
    looks = iter([None, OSError("no route"), ValueError("no JSON"), 42.0])

    def look():
        one = next(looks)
        if isinstance(one, Exception):
            raise one
        return one

    assert spot_watch.watch(look, every=0.0) == 42.0
    assert capsys.readouterr().err.count("no look at the metadata") == 2


def test_this_machines_ray_nodes_are_found_by_their_raylets(tmp_path: Path) -> None:
    one, other = "a1" * 28, "b2" * 28
    for number, words in {
        "10": ["/opt/venv/ray/core/src/ray/raylet/raylet", "--port=1", f"--node-id={one}"],
        "11": ["python", f"--node-id={other}"],  # an agent of that node, which speaks for itself
        "12": ["/opt/venv/ray/core/src/ray/raylet/raylet", "--node-id=short"],
        "self": ["/opt/venv/ray/core/src/ray/raylet/raylet", f"--node-id={other}"],
    }.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    assert spot_watch.local_node_ids(tmp_path) == {one}


@pytest.mark.slow
@pytest.mark.faults
def test_a_real_ray_drains_the_nodes_of_this_machine() -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        worker = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        assert spot_watch.local_node_ids() == {cluster.head_node.node_id, worker.node_id}
        assert spot_watch.drain(cluster.address, 60) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
