"""submit, status and stop on a real head of Ray with a token: jobs that are killed, stopped and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from music_ray.config.load import load_config
from music_ray.jobs.shards import read_index
from music_ray.provenance import git_commit
from music_ray.rundir import RunDir
from tests.security.watching import watching
from tests.submit.ray_head import RayHead

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
ROOT = Path(__file__).resolve().parents[2]
SEEDS = 1500
SECRET = "planted-5ecret-of-the-tests"
SHARDS = ("rollouts", "shards")
SLOWLY = ("generate.tasks_in_flight=2", "generate.conversations_per_task=1")
"""So that there is time to kill and to stop; free keys, which the last submit leaves out."""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    head = RayHead()
    try:
        head.start()
        yield head
    finally:
        head.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory: this package, a configuration, and data that goes along."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "music_ray").symlink_to(ROOT / "music_ray")
    with (folder / "pairs.jsonl").open("w") as handle:
        for number in range(SEEDS):
            opening = [{"role": "user", "content": f"Please tell me about topic {number}."}]
            chosen = [*opening, {"role": "assistant", "content": f"Topic {number} is good."}]
            rejected = [*opening, {"role": "assistant", "content": f"No idea about {number}."}]
            handle.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    values = {
        "name": "job",
        "runs_dir": f"{folder}-shared",
        "data": {"sources": [{"path": "pairs.jsonl"}], "held_out_fraction": 0.0},
        "engine": {"kind": "scripted"},
        "user": {"mode": "template"},
        "contrast": {"mode": "resample"},
        "generate": {"turns": 3, "flush_rows": 50, "flush_seconds": 1.0, "canary": {"seeds": 0}},
    }
    (folder / "job.yaml").write_text(json.dumps(values))
    return folder


class Client:
    """music-ray as a user on another machine calls it."""

    def __init__(self, head: RayHead, folder: Path) -> None:
        self.head, self.folder = head, folder
        self.run = RunDir(load_config(folder / "job.yaml"))
        self.log = folder.parent / "followed.log"

    def call(self, *words: str, **environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            self._command(*words), capture_output=True, text=True, cwd=self.folder, timeout=200,
            env=self.head.environment() | environment,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        with self.log.open("w") as log:
            return subprocess.Popen(
                self._command(*words), stdout=log, stderr=subprocess.STDOUT, text=True, cwd=self.folder,
                env=self.head.environment() | environment, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    def wait_for_rows(self, number: int, process: subprocess.Popen[str]) -> set[int]:
        until = time.monotonic() + 120
        while len(rows := set(read_index(self.run, SHARDS).ids.tolist())) < number:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        return rows

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "music_ray", *words, "--address", self.head.address]


def check_rows(run: RunDir) -> None:
    """Every seed has come out, and none was made twice."""
    rows = run.read_ids(*SHARDS).tolist()
    assert len(rows) == len(set(rows)) == SEEDS
    counts = run.manifest()["stages"]["generate"]["counts"]
    assert (counts["ok"], counts["duplicate_rows"]) == (SEEDS, 0)


@pytest.fixture
def client(head: RayHead, folder: Path) -> Client:
    return Client(head, folder)


def test_without_the_token_there_is_one_clear_message(client: Client) -> None:
    wrong = {"RAY_AUTH_TOKEN": "b" * 64}
    for environment in ({"RAY_AUTH_MODE": "disabled"}, wrong):
        code, out, err = client.call("submit", "job.yaml", **environment)
        assert (code, out) == (2, "")
        assert (
            f"music-ray: the cluster at {client.head.address} asks for its token: set RAY_AUTH_MODE=token"
            in err
        )
        assert "Traceback" not in err


def test_a_secret_is_in_nothing_of_ours_and_where_the_guide_says_in_rays(client: Client) -> None:
    code, out, err = client.call(
        "submit", "job.yaml", "--stage", "seeds", "--env", "PLANTED", PLANTED=SECRET
    )  # fmt: skip
    assert code == 0, out + err
    assert "seeds: done" in out and out.endswith("job music-ray-job-1 has succeeded\n")
    assert "note: Ray keeps the value of PLANTED with the job" in out
    status = client.call("status", "music-ray-job-1")
    assert status[0] == 0 and f"(rows read {SEEDS}" in status[1]
    assert SECRET not in out + err + "".join(status[1:])
    ours = [path for path in Path(client.run.root).rglob("*") if path.is_file()]
    assert len(ours) > 3 and not [path for path in ours if SECRET.encode() in path.read_bytes()]
    # The copy on the cluster has no .git: submit has told it the commit.
    assert client.run.manifest()["git_commit"] == git_commit()

    # What Ray does with it: docs/how-to/gpu-and-cluster.md, "Variables".
    request = urllib.request.Request(
        f"{client.head.address}/api/jobs/", headers={"Authorization": f"Bearer {client.head.token}"}
    )
    assert SECRET in urllib.request.urlopen(request, timeout=20).read().decode()
    files = [path for path in client.head.logs.rglob("*") if path.is_file()]
    telling = {path.name for path in files if SECRET.encode() in path.read_bytes()}
    assert telling == {"runtime_env_agent.log"}
    assert SECRET not in (client.head.logs / "job-driver-music-ray-job-1.log").read_text()


def test_a_head_with_dashboard_jobs_and_metrics_listens_here_alone(client: Client) -> None:
    """With the options of the cluster files, and 127.0.0.1 for the machine."""
    with watching(client.head.process.pid) as seen:  # type: ignore[union-attr]
        assert client.call("status")[0] == 0
    assert len(seen.listening) > 5
    assert seen.listening_elsewhere == set()


def test_a_users_mistake_that_only_the_job_can_see_ends_with_2(client: Client) -> None:
    code, out, err = client.call(
        "submit", "job.yaml", "name=other", "data.sources=[{path: /nowhere/x.jsonl}]", "--resubmit", "2"
    )  # fmt: skip
    assert code == 2, out + err
    assert "music-ray: no file or folder at /nowhere/x.jsonl: correct data.sources" in out
    assert err == "music-ray: job music-ray-other-1 has failed with exit code 2: its log says why\n"


@pytest.mark.faults
def test_a_run_that_is_killed_and_stopped_goes_on_and_makes_nothing_twice(client: Client) -> None:
    if not client.run.is_finished("seeds"):
        assert client.call("submit", "job.yaml", "--stage", "seeds")[0] == 0
    submit = ("submit", "job.yaml", "--stage", "generate")
    following = client.start(*submit, *SLOWLY, "--resubmit", "1")
    first = client.wait_for_rows(100, following)
    client.head.driver("generate").kill()
    second = client.wait_for_rows(len(first) + 100, following)

    code, out, err = client.call("stop", "job.yaml")
    assert (code, err) == (0, ""), err
    newest = out.partition(":")[0]
    assert f"{newest}: STOPPED. What was finished is kept; the same submit goes on\n" in out
    assert following.wait(timeout=60) == 130
    said = client.log.read_text()
    again = "was lost (its driver was ended by signal 9): the same submit goes on. Submitting again in 5.0 s"
    assert again in said and f"submitted: {newest}\n" in said
    assert said.endswith(f"music-ray: job {newest} was stopped: the same submit goes on\n")

    flushed = set(read_index(client.run, SHARDS).ids.tolist())
    assert first <= second <= flushed and len(flushed) < SEEDS
    code, out, err = client.call(*submit)
    assert code == 0, out + err
    assert f"{len(flushed)} of {SEEDS} rollouts are there already" in out
    check_rows(client.run)


def test_ctrl_c_ends_the_following_and_not_the_job(client: Client) -> None:
    submit = ("submit", "job.yaml", "name=left", "--stage", "seeds")
    following = client.start(*submit)
    until = time.monotonic() + 120
    while "Ctrl-C ends the following" not in client.log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(following.pid, signal.SIGINT)
    assert following.wait(timeout=30) == 130
    said = client.log.read_text()
    assert "music-ray: music-ray-left-1 goes on by itself\n" in said and "Traceback" not in said
    while "SUCCEEDED" not in (out := client.call("status", "job.yaml", "name=left")[1]):
        assert time.monotonic() < until, out
    assert "  seeds     done " in out and "  generate  –" in out


@pytest.mark.faults
def test_a_lost_head_is_waited_for_and_the_run_submitted_again(client: Client) -> None:
    run = ("job.yaml", "name=headless")
    assert client.call("submit", *run, "--stage", "seeds")[0] == 0
    client.run = RunDir(load_config(client.folder / "job.yaml", ["name=headless"]))
    following = client.start("submit", *run, *SLOWLY, "--stage", "generate", "--resubmit", "1")
    client.wait_for_rows(100, following)
    client.head.kill()
    time.sleep(5)
    client.head.start()
    assert following.wait(timeout=240) == 0, client.log.read_text()
    said = client.log.read_text()
    assert "Waiting for up to 30 min" in said and "answers again" in said
    assert (
        "was lost: the cluster has a new head, which does not know it. Submitting again in 5.0 s (1 of 1)"
        in said
    )
    check_rows(client.run)
