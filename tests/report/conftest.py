"""Run folders for the tests of the report and of inspect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from music_ray.config import RunConfig
from music_ray.report.build import run_report
from music_ray.rundir import RunDir
from tests.report.evaluation_folder import write_any_model, write_best_of_n, write_held_out
from tests.report.report_folder import HOSTILE, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    """Opens an empty run folder of a given name, with further configuration."""

    def make(name: str = "small", **sections: Any) -> RunDir:
        sections.setdefault("plan", {"seeds": 60, "generate": 45})
        return RunDir(RunConfig(name=name, runs_dir=str(tmp_path / "runs"), **sections))

    return make


@pytest.fixture
def run(make_run: Callable[..., RunDir]) -> RunDir:
    """A finished run."""
    opened = make_run()
    _write(opened)
    return opened


@pytest.fixture
def hostile_run(make_run: Callable[..., RunDir]) -> RunDir:
    """A finished run whose texts try to break out of the page."""
    opened = make_run("hostile")
    _write(opened, text=HOSTILE)
    return opened


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run with its report, for tests that only read: drawing the charts takes a second."""
    return _built(tmp_path_factory.mktemp("finished"), "small", "")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same with hostile texts."""
    return _built(tmp_path_factory.mktemp("hostile"), "hostile", HOSTILE)


def _built(folder: Path, name: str, text: str) -> RunDir:
    plan = {"seeds": 60, "generate": 45}
    built = RunDir(RunConfig.model_validate({"name": name, "runs_dir": str(folder), "plan": plan}))
    _write(built, text=text)
    run_report(built)
    return built


def _write(run: RunDir, *, text: str = "") -> None:
    """A run that went all the way, with evaluations beside it."""
    write_run(run, text=text)
    write_held_out(run, text=text)
    write_any_model(run, text=text)
    write_best_of_n(run, text=text)
