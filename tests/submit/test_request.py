"""The command of a job, as a shell reads it, and the folder that it is known by."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.provenance import git_commit
from music_ray.submit.request import Request, held_seconds, make_request, run_location
from tests.submit.conftest import config_of

ROOT = Path(__file__).resolve().parents[2]
NASTY = [
    "a b=c",
    "x='q\"uote'",
    "$HOME=`id`",
    "y=[{path: my file.jsonl}]",
    "z=line\nbreak",
    "!x=*;&|>\\",
    "é=ü",
]


def command_of(words) -> str:
    return make_request(config_of(), "run", "configs/my run.yaml", words, {}, 0.0).command


def test_a_shell_hands_every_word_over_as_it_was_given() -> None:
    command = command_of(NASTY).replace("python -m music_ray", f"{sys.executable} -c {shlex.quote(_TELL)}", 1)
    told = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == ["run", "configs/my run.yaml", *NASTY]


_TELL = "import json, sys; print(json.dumps(sys.argv[1:]))"


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_quoting_can_be_undone(words) -> None:
    assert shlex.split(command_of(words)) == [
        "python",
        "-m",
        "music_ray",
        "run",
        "configs/my run.yaml",
        *words,
    ]


def test_the_id_tells_the_run_and_the_metadata_its_folder() -> None:
    request = make_request(config_of(), "generate", "a.yaml", [], {"T": "v"}, 2.0)
    assert request.job_id(3) == "music-ray-a-3"
    assert request.metadata["music_ray_run"] == "s3://bucket/runs/a"
    assert set(request.metadata) <= {"music_ray_run", "music_ray_commit"}
    assert "v" not in json.dumps(request.metadata).split('"')
    assert request.command == "python -m music_ray generate a.yaml"
    assert Request("a", "r", ()).driver_cpus == 0.0


def test_the_commit_is_told_where_the_checkout_that_is_sent_is_the_one_that_runs(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = make_request(config_of(), "run", "a.yaml", [], {}, 0.0).metadata.get("music_ray_commit")
    assert found == git_commit()
    monkeypatch.chdir(tmp_path)
    assert set(make_request(config_of(), "run", "a.yaml", [], {}, 0.0).metadata) == {"music_ray_run"}


@pytest.mark.parametrize(
    ("runs_dir", "location"),
    [
        ("s3://bucket/runs/", "s3://bucket/runs/a"),
        ("s3://bucket/runs?region=eu-west-1&endpoint_override=http://x:1", "s3://bucket/runs/a"),
        ("file:///shared/runs", "file:///shared/runs/a"),
        ("/shared/runs/", "/shared/runs/a"),
        ("/shared/../shared/runs", "/shared/runs/a"),
        ("runs", f"{os.getcwd()}/runs/a"),
    ],
)
def test_a_run_is_known_by_its_folder_without_options(runs_dir, location) -> None:
    assert run_location(config_of(runs_dir=runs_dir)) == location


def test_a_killed_driver_holds_its_run_on_an_object_store_only() -> None:
    assert held_seconds(config_of()) == 65.0
    assert held_seconds(config_of(runs_dir="/shared")) == held_seconds(config_of(runs_dir="file:///x")) == 0.0
