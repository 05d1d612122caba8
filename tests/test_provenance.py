"""The commit that a run is made by: of the checkout, and in a job the one that submit has told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from music_ray import provenance

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The working directory of a job: the module without .git."""
    (tmp_path / "music_ray").mkdir()
    shutil.copy(ROOT / "music_ray" / "provenance.py", tmp_path / "music_ray")
    (tmp_path / "music_ray" / "__init__.py").write_text('__version__ = "0"\n')
    return tmp_path


def commit_in(folder: Path, **environment: str) -> str:
    script = "from music_ray.provenance import git_commit; print(git_commit())"
    own = {"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(folder.parent), **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=own, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def job(commit: object) -> str:
    """What Ray gives the driver of a job."""
    return json.dumps({"runtime_env": {}, "metadata": {"job_name": "x", provenance.COMMIT_KEY: commit}})


def test_a_job_without_git_says_what_submit_has_told(copy: Path) -> None:
    assert commit_in(copy) == "None"
    for commit in (COMMIT, f"{COMMIT}-dirty"):
        assert commit_in(copy, RAY_JOB_CONFIG_JSON_ENV_VAR=job(commit)) == commit


@pytest.mark.parametrize(
    "told",
    ["", "{", "[]", '"x"', "{}", '{"metadata": null}', job(None), job(7), job("main"), job(f"{COMMIT}\n")],
)
def test_what_is_no_commit_is_not_recorded(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", told)
    assert provenance._commit_of_job() is None


def test_a_checkout_knows_better_than_the_job(copy: Path) -> None:
    git = ["git", "-C", str(copy), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert commit_in(copy, RAY_JOB_CONFIG_JSON_ENV_VAR=job(COMMIT)) == head.stdout.strip()


def test_the_variable_is_rays() -> None:
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert provenance._JOB_VARIABLE == RAY_JOB_CONFIG_JSON_ENV_VAR
