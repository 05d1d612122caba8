"""What a job's end means: which exit code it gives, and whether the same submit may help."""

import pytest

from music_ray.submit.job import Job, jobs_of_run, newest_first, next_number


def failed(exit_code=None, error_type=None, message="") -> Job:
    return Job("j", "FAILED", "c", exit_code=exit_code, error_type=error_type, message=message)


@pytest.mark.parametrize(
    ("exit_code", "error_type", "lost", "result"),
    [
        (None, "JOB_SUPERVISOR_ACTOR_DIED", True, 3),
        (None, "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", True, 3),
        (None, None, True, 3),
        (-9, "JOB_ENTRYPOINT_COMMAND_ERROR", True, 3),
        (-15, "JOB_ENTRYPOINT_COMMAND_ERROR", True, 3),
        (137, "JOB_ENTRYPOINT_COMMAND_ERROR", True, 3),
        (139, "JOB_ENTRYPOINT_COMMAND_ERROR", True, 3),
        (1, "JOB_ENTRYPOINT_COMMAND_ERROR", False, 1),
        (2, "JOB_ENTRYPOINT_COMMAND_ERROR", False, 2),
        (3, "JOB_ENTRYPOINT_COMMAND_ERROR", False, 3),
        (75, "JOB_ENTRYPOINT_COMMAND_ERROR", True, 75),
        (127, "JOB_ENTRYPOINT_COMMAND_ERROR", False, 127),
        (130, "JOB_ENTRYPOINT_COMMAND_ERROR", False, 130),
        (None, "RUNTIME_ENV_SETUP_FAILURE", False, 3),
        (None, "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", False, 3),
        (None, "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", False, 3),
    ],
)
def test_which_end_may_be_submitted_again(exit_code, error_type, lost, result) -> None:
    job = failed(exit_code, error_type)
    assert (job.is_lost, job.result) == (lost, result)


def test_other_states_are_never_lost() -> None:
    for state, result in (("SUCCEEDED", 0), ("STOPPED", 130)):
        job = Job("j", state, "c")
        assert (job.is_lost, job.result, job.is_active) == (False, result, False)
    assert Job("j", "PENDING", "c").is_active and Job("j", "RUNNING", "c").is_active


def test_the_end_in_words() -> None:
    assert failed(-9).end == "job j was lost (its driver was ended by signal 9): the same submit goes on"
    assert failed(137).end == "job j was lost (its driver was ended by signal 9): the same submit goes on"
    assert failed(None, None, "Job supervisor actor died: x\nmore").end == (
        "job j was lost (Job supervisor actor died: x): the same submit goes on"
    )
    assert failed(None, "RUNTIME_ENV_SETUP_FAILURE", "runtime_env setup failed: x").end == (
        "job j could not be started (runtime_env setup failed: x): the same submit goes on"
    )
    assert failed(2).end == "job j has failed with exit code 2: its log says why"
    assert failed(75).end == (
        "job j has ended with exit code 75 for a cause that passes, which its log names: the same submit "
        "goes on"
    )
    assert Job("j", "STOPPED", "c").end == "job j was stopped: the same submit goes on"


def test_a_number_is_one_more_than_the_cluster_has_seen() -> None:
    ids = ("music-ray-a-1", "music-ray-a-9", "music-ray-a-b-20", "music-ray-ab-30", "xmusic-ray-a-40", "a-50")
    jobs = [Job(one, "FAILED", "c") for one in ids]
    assert next_number(jobs, "a") == 10
    assert next_number(jobs, "a-b") == 21
    assert next_number(jobs, "a.b") == 1  # the dot is no pattern
    assert next_number([], "a") == 1


def test_jobs_of_a_run_are_found_by_its_folder_the_newest_first() -> None:
    jobs = [Job(str(n), "FAILED", "c", run=run, started=n) for n, run in enumerate(("x/a", "y/a", "x/a"))]
    assert [job.id for job in jobs_of_run(jobs, "x/a")] == ["2", "0"]
    assert [job.id for job in newest_first(jobs)] == ["2", "1", "0"]


@pytest.mark.parametrize(
    ("command", "run", "ours"),
    [
        ("python -m music_ray run a.yaml", None, True),
        ("/opt/venv/bin/music-ray generate a.yaml", None, True),
        ("python train.py --for music_ray", None, False),
        ("python other.py", "s3://b/a", True),
    ],
)
def test_which_jobs_are_ours(command, run, ours) -> None:
    assert Job("j", "RUNNING", command, run=run).is_ours is ours
