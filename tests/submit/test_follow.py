"""A job is looked after: its log comes out once, lost jobs are submitted again, heads come and go."""

import threading
import time
from collections.abc import Callable

import pytest

from music_ray.submit.cluster import Cluster, UnreachableError
from music_ray.submit.follow import Follower, Patience
from music_ray.submit.job import JobEndedError
from music_ray.submit.request import Request
from tests.submit.job_server import JobServer, ServedJob

RUN = "s3://b/a"
FIRST, SECOND, THIRD = (f"music-ray-a-{number}" for number in (1, 2, 3))
REQUEST = Request("a", RUN, ("python",), {"T": "a-secret-value"}, metadata={"music_ray_run": RUN})
QUICK = Patience(look=0.1, cluster=20.0, first_pause=0.05)


@pytest.fixture
def follow(server: JobServer, tmp_path, monkeypatch):
    """follow(resubmit): sees the first job through; the test's other hand is `meanwhile`."""
    # A server that is being stopped may take a connection and never answer.
    monkeypatch.setattr("music_ray.submit.cluster._ANSWER_SECONDS", 2.0)
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    server.add(FIRST, RUN)

    def see_through(resubmit: int = 0, patience: Patience = QUICK) -> None:
        cluster = Cluster(server.address)
        Follower(cluster, REQUEST, str(tmp_path / "a.zip"), resubmit, patience).see_through(FIRST)

    return see_through


def meanwhile(*steps: Callable[[], object]) -> threading.Thread:
    """What happens while the job is followed, one after the other."""

    def run() -> None:
        for step in steps:
            step()
            time.sleep(0.25)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def ended(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(JobEndedError) as caught:
        call()
    return str(caught.value), caught.value.exit_code


def wait_for(server: JobServer, job_id: str) -> ServedJob:
    until = time.monotonic() + 20
    while job_id not in server.jobs:
        assert time.monotonic() < until, f"{job_id} was never submitted"
        time.sleep(0.02)
    return server.jobs[job_id]


def add(job: ServedJob, text: str) -> Callable[[], None]:
    def write() -> None:
        job.log += text

    return write


def test_the_log_is_shown_as_it_grows_until_the_job_has_succeeded(server, follow, capsys) -> None:
    job = server.jobs[FIRST]
    meanwhile(add(job, "seeds: starting\n"), add(job, "seeds: done\n"), lambda: job.end("SUCCEEDED", 0))
    follow()
    assert capsys.readouterr().out == f"seeds: starting\nseeds: done\njob {FIRST} has succeeded\n"
    assert server.connections == 1


def test_the_last_lines_of_a_log_come_out_though_the_job_has_ended(server, follow, capsys) -> None:
    job = server.jobs[FIRST]
    job.log = "".join(f"line {number}\n" for number in range(3000))
    job.end("FAILED", 2)
    assert ended(follow) == (f"job {FIRST} has failed with exit code 2: its log says why", 2)
    assert capsys.readouterr().out == job.log


def test_a_connection_that_breaks_repeats_no_line(server, follow, capsys) -> None:
    job = server.jobs[FIRST]
    meanwhile(
        add(job, "one\ntwo\n"), server.break_logs, add(job, "three\n"), server.break_logs, add(job, "four\n"),
        lambda: job.end("SUCCEEDED", 0),
    )  # fmt: skip
    follow()
    assert capsys.readouterr().out.splitlines()[:-1] == ["one", "two", "three", "four"]
    assert server.connections >= 3


def test_values_of_variables_are_hidden_in_the_log(server, follow, capsys) -> None:
    job = server.jobs[FIRST]
    job.log = "token a-secret-value is wrong\n"
    job.end("SUCCEEDED", 0)
    follow()
    # The server of the tests cuts the log into pieces of seven characters, Ray's into lines.
    assert "a-secret-value" not in capsys.readouterr().out


def test_a_log_keeps_its_colours_and_nothing_else_that_acts(server, follow, capsys) -> None:
    job = server.jobs[FIRST]
    job.log = "\x1b[36mblue\x1b[0m\n\x1b[2Jgone\x1b]0;title\x07\n10%\r20%\n"
    job.end("SUCCEEDED", 0)
    follow()
    assert capsys.readouterr().out.split("\n")[:4] == [
        "\x1b[36mblue\x1b[0m", "␛[2Jgone␛]0;title␇", "10%", "20%"
    ]  # fmt: skip


def test_a_job_that_waits_for_long_is_told_of_once(server, follow, capsys, monkeypatch) -> None:
    monkeypatch.setattr("music_ray.submit.follow._WAITING_SECONDS", 0.15)
    job = server.jobs[FIRST]
    job.state, job.message = "PENDING", "Job has not started yet. It may be waiting for resources."
    meanwhile(lambda: time.sleep(0.5), lambda: job.end("SUCCEEDED", 0))
    follow()
    assert capsys.readouterr().out.splitlines() == [
        f"{FIRST} waits to be started: Job has not started yet. It may be waiting for resources.",
        f"job {FIRST} has succeeded",
    ]


@pytest.mark.parametrize(
    ("state", "exit_code", "result"),
    [("STOPPED", None, 130), ("FAILED", 2, 2), ("FAILED", 3, 3), ("FAILED", 130, 130)],
)
def test_what_would_end_the_same_way_is_not_submitted_again(server, follow, state, exit_code, result) -> None:
    server.jobs[FIRST].end(state, exit_code)
    assert ended(lambda: follow(resubmit=3))[1] == result
    assert list(server.jobs) == [FIRST]


def test_what_ended_for_a_cause_that_passes_is_submitted_again(server, follow, capsys) -> None:
    server.jobs[FIRST].end("FAILED", 75)
    meanwhile(lambda: wait_for(server, SECOND).end("FAILED", 75))
    end = "has ended with exit code 75 for a cause that passes, which its log names: the same submit goes on"
    assert ended(lambda: follow(resubmit=1)) == (f"job {SECOND} {end}", 75)
    assert list(server.jobs) == [FIRST, SECOND]
    assert f"job {FIRST} {end}. Submitting again in " in capsys.readouterr().out


def test_a_lost_job_is_submitted_again_as_often_as_was_said(server, follow, capsys) -> None:
    server.jobs[FIRST].end("FAILED", -9)
    meanwhile(
        lambda: wait_for(server, SECOND).end("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED"),
        lambda: wait_for(server, THIRD).end("FAILED", 137),
    )
    message, code = ended(lambda: follow(resubmit=2))
    assert (message, code) == (
        f"job {THIRD} was lost (its driver was ended by signal 9): the same submit goes on", 3
    )  # fmt: skip
    assert list(server.jobs) == [FIRST, SECOND, THIRD]
    assert server.jobs[THIRD].request["metadata"] == {"music_ray_run": RUN}
    assert server.jobs[THIRD].request["runtime_env"]["env_vars"] == {"T": "a-secret-value"}
    assert capsys.readouterr().out.splitlines() == [
        f"job {FIRST} was lost (its driver was ended by signal 9): the same submit goes on. Submitting again "
        "in 0.1 s (1 of 2)",
        f"submitted: {SECOND}",
        f"job {SECOND} was lost (JOB_SUPERVISOR_ACTOR_DIED): the same submit goes on. Submitting again in "
        "0.1 s (2 of 2)",
        f"submitted: {THIRD}",
    ]


def test_a_job_that_others_have_submitted_by_now_is_followed_instead(server, follow, capsys) -> None:
    server.jobs[FIRST].end("FAILED", -9)
    other = server.add("music-ray-a-7", RUN)
    meanwhile(lambda: time.sleep(0.5), lambda: other.end("SUCCEEDED", 0))
    follow(resubmit=1)
    assert list(server.jobs) == [FIRST, "music-ray-a-7"]
    assert "music-ray-a-7 does this run by now\n" in capsys.readouterr().out


def test_a_cluster_that_is_away_for_a_while_is_waited_for(server, follow, capsys) -> None:
    job = server.jobs[FIRST]
    meanwhile(
        add(job, "one\n"), server.stop, add(job, "two\n"), server.start, add(job, "three\n"),
        lambda: job.end("SUCCEEDED", 0),
    )  # fmt: skip
    follow()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert f"{server.address} answers again" in lines
    assert any(line.endswith("forward the port again. Waiting for up to 20 s") for line in lines)


def test_a_new_head_gets_the_run_again(server, follow, capsys) -> None:
    """Without memory of the job that ran, and at first without an agent that takes jobs."""
    server.refuse_submissions = 2
    meanwhile(
        server.stop, server.jobs.clear, server.start, lambda: wait_for(server, FIRST).end("SUCCEEDED", 0)
    )
    follow(resubmit=1)
    out = capsys.readouterr().out
    assert (
        f"job {FIRST} was lost: the cluster has a new head, which does not know it. Submitting again in"
        in out
    )
    assert out.endswith(f"job {FIRST} has succeeded\n")


def test_a_new_head_is_an_end_where_nothing_is_to_be_submitted_again(server, follow) -> None:
    meanwhile(server.stop, server.jobs.clear, server.start)
    assert ended(follow) == (f"job {FIRST} was lost: the cluster has a new head, which does not know it", 3)


def test_a_cluster_that_stays_away_is_given_up(server, follow) -> None:
    server.stop()
    with pytest.raises(UnreachableError):
        follow(resubmit=3, patience=Patience(look=0.05, cluster=0.3))


def test_pauses_double_up_to_a_bound_and_outlast_a_lease() -> None:
    assert [Patience().pause(number) for number in (0, 1, 2, 3, 6, 50)] == [5, 10, 20, 40, 300, 300]
    assert [Patience(at_least=65.0).pause(number) for number in (0, 3, 4, 5)] == [65, 65, 80, 160]
