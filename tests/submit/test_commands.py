"""The commands as a user types them, against a job server."""

import json
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from music_ray import cli
from music_ray.submit.cluster import Cluster
from music_ray.submit.find import find
from tests.submit.job_server import JobServer

RUN = "s3://bucket/runs/a"


@pytest.fixture
def call(monkeypatch, capsys, checkout):
    """music-ray with these words, in this process, in a checkout."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["music-ray", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def shared(tmp_path) -> str:
    """An override: storage that all nodes see."""
    return f"runs_dir={tmp_path}/shared"


def test_a_dry_run_says_what_would_be_sent_and_asks_no_cluster(call, monkeypatch, checkout) -> None:
    monkeypatch.setenv("ONE_TOKEN", "a-secret-value")
    code, out, err = call("submit", "configs/a.yaml", "--dry-run", "--env", "ONE_TOKEN", "data.licence=x y")
    assert (code, out, err)[0] == 2  # an unknown key is found here
    code, out, err = call("submit", "configs/a.yaml", "--dry-run", "--env", "ONE_TOKEN", "assistant.hint=x y")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "command:           python -m music_ray run configs/a.yaml 'assistant.hint=x y'"
    assert lines[1] == f"working directory: {checkout} (8 files, 0.0 MiB packed)"
    assert lines[2].startswith("not sent:          what .gitignore and .rayignore name, and .git .venv venv ")
    assert lines[3].endswith('"env_vars": {"ONE_TOKEN": "<value of this environment>"}}')
    assert lines[4] == "driver:            on the head"
    assert '"music_ray_run": "s3://bucket/runs/a"' in lines[5]
    assert lines[6].startswith("note: Ray keeps the value of ONE_TOKEN with the job, where whoever has")
    assert "a-secret-value" not in out


def test_mistakes_cost_nothing(call, server: JobServer) -> None:
    submit = ("submit", "configs/a.yaml", "--address", server.address)
    for words, message in [
        (("--env", "NOT_THERE"), "--env NOT_THERE: NOT_THERE is not set here"),
        (("runs_dir=runs",), "runs_dir (runs) is relative"),
        (("generate.trns=3",), "unknown key generate.trns: did you mean generate.turns?"),
        (
            ("data.sources=[{path: data/big.parquet}]",),
            "data.sources names data/big.parquet, which is not sent",
        ),
        (("--resubmit", "2", "--no-follow"), "--resubmit 2 needs somebody who looks after the job"),
    ]:
        code, out, err = call(*submit, *words)
        assert (code, out) == (2, "")
        assert err.startswith(f"music-ray: {message}"), err
    code, _, err = call("submit", "configs/a.yaml")
    assert code == 2 and err.startswith(
        "music-ray: no address of a Ray cluster: give --address http://HOST:8265"
    )
    assert server.jobs == {} and server.uploads == []


def test_a_job_is_submitted_and_left(call, server: JobServer, shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server.address)
    code, out, err = call("submit", "configs/a.yaml", shared, "--no-follow", "--driver-cpus", "2")
    assert (code, err) == (0, "")
    job = server.jobs["music-ray-a-1"].request
    assert job["entrypoint"] == f"python -m music_ray run configs/a.yaml {shared}"
    assert job["entrypoint_num_cpus"] == 2.0
    assert job["metadata"]["music_ray_run"] == f"{tmp_path}/shared/a"
    assert set(job["runtime_env"]) == {"working_dir"}
    assert "configs/a.yaml" in zipfile.ZipFile(BytesIO(server.uploads[0])).namelist()
    assert out.splitlines() == [
        f"note: every node must see {tmp_path}/shared/a",
        "note: the driver takes 2 CPUs on whatever node has them; if that is a spot node, the run ends with "
        "it until it is submitted again",
        f"submitted: music-ray-a-1 to {server.address}, with 0.0 MiB of working directory",
        f"its run: {tmp_path}/shared/a",
        "music-ray-a-1 goes on by itself",
        f"follow it: ray job logs --follow --address {server.address} music-ray-a-1",
        f"its state: music-ray status --address {server.address} music-ray-a-1",
        f"stop it:   music-ray stop --address {server.address} music-ray-a-1",
    ]


def test_a_run_whose_job_is_running_is_refused(call, server: JobServer, shared, tmp_path) -> None:
    submit = ("submit", "configs/a.yaml", shared, "--no-follow", "--address", server.address)
    assert call(*submit)[0] == 0
    server.jobs["music-ray-a-1"].state = "PENDING"
    code, _, err = call(*submit)
    assert (code, err) == (
        2,
        f"music-ray: music-ray-a-1 does {tmp_path}/shared/a already (PENDING): look with `music-ray status "
        "music-ray-a-1`, end it with `music-ray stop music-ray-a-1`, or give this run another name\n",
    )
    server.jobs["music-ray-a-1"].end("STOPPED")
    assert call(*submit)[0] == 0
    assert list(server.jobs) == ["music-ray-a-1", "music-ray-a-2"]
    # Another run of the same name is another run; its id says the next number.
    assert call(*submit, f"runs_dir={tmp_path}/other")[0] == 0
    assert list(server.jobs)[-1] == "music-ray-a-3"


def test_an_identity_key_that_differs_is_found_before_the_job_begins(
    call, server: JobServer, tmp_path
) -> None:
    folder = tmp_path / "shared" / "a"
    (folder / "rollouts").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stages": {}, "identity": {"seed": 5}}))
    code, _, err = call(
        "submit", "configs/a.yaml", f"runs_dir={tmp_path}/shared", "--address", server.address
    )
    assert code == 2 and f"seed is 0, but {folder} was made with 5" in err
    assert server.jobs == {}


@pytest.mark.parametrize(("end", "code"), [(("SUCCEEDED", 0), 0), (("FAILED", 3), 3), (("STOPPED",), 130)])
def test_the_exit_code_is_the_jobs(call, server: JobServer, shared, end, code) -> None:
    import threading

    def finish() -> None:
        while "music-ray-a-1" not in server.jobs:
            time.sleep(0.02)
        server.jobs["music-ray-a-1"].log = "a line\n"
        server.jobs["music-ray-a-1"].end(*end)

    threading.Thread(target=finish, daemon=True).start()
    found, out, err = call("submit", "configs/a.yaml", shared, "--address", server.address)
    assert found == code
    assert "a line\n" in out
    assert bool(err) == bool(code)


def test_status_lists_our_jobs_the_newest_first(call, server: JobServer) -> None:
    status = ("status", "--address", server.address)
    assert call(*status) == (0, f"no job of music_ray on {server.address}\n", "")
    now = int(time.time() * 1000)
    server.add("music-ray-a-1", RUN, started=now - 7_200_000).end("FAILED", 2)
    server.add("music-ray-b-1", "/shared/runs/b", started=now - 3_600_000)
    server.add("raysubmit_1", None, started=now - 60_000)
    server.add("raysubmit_2", None, entrypoint="python other.py")
    server.jobs["music-ray-b-1"].request["runtime_env"] = {"env_vars": {"T": "a-secret-value"}}
    code, out, err = call(*status)
    rows = [line.split() for line in out.splitlines()]
    assert (code, err, "a-secret-value" in out) == (0, "", False)
    assert rows[0] == ["run", "job", "state", "since", "exit", "code"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        ("?", "raysubmit_1", "RUNNING", "–"),
        ("/shared/runs/b", "music-ray-b-1", "RUNNING", "–"),
        (RUN, "music-ray-a-1", "FAILED", "2"),
    ]
    assert "(1 h 00 min)" in out


def make_run(tmp_path: Path) -> Path:
    folder = tmp_path / "shared" / "a"
    folder.mkdir(parents=True)
    stages = {
        "seeds": {"status": "done", "finished": "2026-11-05T10:00:00Z", "counts": {"rows_read": 68, "x": {}}},
        "generate": {"status": "running", "started": "2026-11-05T10:01:00Z", "starts": 2},
    }
    (folder / "manifest.json").write_text(json.dumps({"stages": stages}))
    return folder


def test_status_of_a_run_shows_its_jobs_and_stages(call, server: JobServer, shared, tmp_path) -> None:
    folder = make_run(tmp_path)
    server.add("music-ray-a-1", str(folder), started=1).end("FAILED", -9)
    server.add("music-ray-a-2", RUN, started=2)
    expected = [
        f"stages of {folder}:",
        "  seeds     done 2026-11-05T10:00:00Z (rows read 68)",
        "  generate  running since 2026-11-05T10:01:00Z, start 2",
        "  pairs     –",
    ]
    for words in (("configs/a.yaml", shared), ("music-ray-a-1",)):
        code, out, _ = call("status", *words, "--address", server.address)
        lines = out.splitlines()
        assert code == 0 and lines[1].split()[:3] == [str(folder), "music-ray-a-1", "FAILED"]
        assert lines[2] == (
            "job music-ray-a-1 was lost (its driver was ended by signal 9): the same submit goes on"
        )
        assert lines[3:7] == expected
        assert "music-ray-a-2" not in out


def test_a_run_is_found_by_its_name_where_its_runs_dir_was_not_given_again(call, server, tmp_path) -> None:
    folder = make_run(tmp_path)
    server.add("music-ray-a-1", str(folder))
    status = ("status", "configs/a.yaml", "runs_dir=runs", "--address", server.address)
    assert f"stages of {folder}:" in call(*status)[1]
    server.add("music-ray-a-2", RUN)
    code, _, err = call(*status)
    assert (code, err) == (
        2,
        f"music-ray: several runs are called a ({folder}, {RUN}): name the job, or give the runs_dir=… that "
        "it was submitted with\n",
    )


def test_a_run_without_jobs_or_folder_says_so(call, server: JobServer, shared, tmp_path) -> None:
    code, out, _ = call("status", "configs/a.yaml", shared, "--address", server.address)
    assert (code, out.splitlines()) == (
        0,
        [
            f"no job of this run on {server.address}",
            f"stages of {tmp_path}/shared/a:",
            "  nothing lies there yet, or this machine does not see it",
        ],
    )
    code, _, err = call("status", "music-ray-x-1", "--address", server.address)
    assert code == 2 and err.startswith("music-ray: no job of music_ray called music-ray-x-1 on http://")


def test_stop_waits_for_the_end(call, server: JobServer, shared, tmp_path) -> None:
    server.add("music-ray-a-1", f"{tmp_path}/shared/a")
    stop = ("stop", "configs/a.yaml", shared, "--address", server.address)
    assert call(*stop) == (
        0,
        "music-ray-a-1: asked to stop\nmusic-ray-a-1: STOPPED. What was finished is kept; the same submit "
        "goes on\n",
        "",
    )
    code, _, err = call(*stop)
    assert (code, err) == (
        2,
        f"music-ray: no job of configs/a.yaml is running on {server.address}; music-ray-a-1 is STOPPED: look "
        "with `music-ray status`\n",
    )


def test_stop_names_the_follower_that_would_submit_again(call, server: JobServer) -> None:
    server.add("music-ray-a-1", RUN).end("FAILED", exit_code=75)
    code, _, err = call("stop", "music-ray-a-1", "--address", server.address)
    assert code == 2
    assert err.endswith(
        "; music-ray-a-1 is FAILED: look with `music-ray status`. A `submit --resubmit` that follows it will "
        "submit again: end that by Ctrl-C\n"
    )


def test_a_job_without_a_place_cannot_be_stopped(call, server: JobServer, monkeypatch) -> None:
    monkeypatch.setattr("music_ray.submit.stop.STOP_SECONDS", 0.1)
    server.stop_takes_effect = False
    server.add("music-ray-a-1", RUN, state="PENDING")
    code, _, err = call("stop", "music-ray-a-1", "--address", server.address)
    assert code == 3 and "Ray can't do that before it has found a place for the driver" in err


def test_a_job_s_run_is_found_with_the_options_of_its_store(server: JobServer) -> None:
    """Without its endpoint Amazon would be asked, with the other store's keys."""
    place = "s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http"
    server.add("music-ray-a-1", "s3://bucket/runs/a", f"python -m music_ray run a.yaml 'runs_dir={place}'")
    server.add("music-ray-a-2", "s3://bucket/runs/a", "music-ray run a.yaml runs_dir=s3://other/runs 'open")
    cluster = Cluster(server.address)
    assert [find(f"music-ray-a-{number}", [], cluster).run.runs_dir for number in (1, 2)] == [
        place, "s3://bucket/runs",
    ]  # fmt: skip


def test_stop_says_how_long_an_object_store_is_held(call, server: JobServer) -> None:
    server.add("music-ray-a-1", RUN)
    assert call("stop", "music-ray-a-1", "--address", server.address)[1].endswith(
        "if its driver had to be killed, the run is held for up to 1 min 05 s more\n"
    )


def test_a_job_that_does_not_end_is_given_up_after_a_while(call, server: JobServer, monkeypatch) -> None:
    monkeypatch.setattr("music_ray.submit.stop.STOP_SECONDS", 0.1)
    server.stop_takes_effect = False
    server.add("music-ray-a-1", "/shared/a")
    code, out, err = call("stop", "music-ray-a-1", "--address", server.address)
    assert (code, out) == (3, "music-ray-a-1: asked to stop\n")
    assert err.startswith("music-ray: music-ray-a-1 was asked to stop, and still runs after 0.1 s: look with")


def test_what_others_call_their_jobs_neither_steers_the_terminal_nor_runs(
    call, server: JobServer, shared, tmp_path
) -> None:
    name = "music-ray-$(touch evil)\n\x1b[2J"
    server.add(name, f"{tmp_path}/shared/a")
    code, out, err = call("status", "--address", server.address)
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    assert "\x1b" not in out and "music-ray-$(touch evil)␊␛[2J" in out
    code, _, err = call("submit", "configs/a.yaml", shared, "--no-follow", "--address", server.address)
    assert code == 2 and "\x1b" not in err
    assert "music-ray stop 'music-ray-$(touch evil)\n" in err  # in quotes a shell runs nothing of it
