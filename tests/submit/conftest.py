"""A job server, and folders as a user's checkout looks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from music_ray.config.load import resolve_config
from music_ray.submit.address import ADDRESS_VARIABLES
from tests.submit.job_server import JobServer


@pytest.fixture(autouse=True)
def no_cluster_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ADDRESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[JobServer]:
    """A job server without jobs."""
    server = JobServer()
    yield server
    server.close()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a configuration, code, data, and what is not to be sent."""
    folder = tmp_path / "checkout"
    files = {
        "configs/a.yaml": "name: a\nruns_dir: s3://bucket/runs\ndata: {sources: [{path: data/pairs.jsonl}]}\n"
        "engine: {kind: scripted}\n",
        "music_ray/__main__.py": "",
        "data/pairs.jsonl": "{}\n",
        "data/big.parquet": "x",
        ".gitignore": "*.parquet\n/private/\nlogs/\n!kept.parquet\n",
        "data/kept.parquet": "x",
        "private/notes.txt": "x",
        "src/logs/one.txt": "x",
        "src/.rayignore": "*.bin\n",
        "src/model.bin": "x",
        "src/model.py": "x",
        ".git/HEAD": "x",
        ".venv/bin/python": "x",
        "src/__pycache__/model.pyc": "x",
        ".env": "SECRET=1",
        ".env.production": "SECRET=1",
        ".envrc": "export SECRET=1",
        ".aws/credentials": "SECRET=1",
        "runs/a/manifest.json": "{}",
        "docs/runs/page.md": "x",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


def config_of(**values):
    """A configuration that may be submitted."""
    engine = {"engine": {"kind": "scripted"}, "train": {"base_model": "a/b"}}
    return resolve_config({"name": "a", "runs_dir": "s3://bucket/runs", **engine, **values})
