"""Which models of an evaluation are the run's own: by digest, and by place where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from music_ray.report.collect import collect
from music_ray.report.model_digest import model_digest
from music_ray.report.roles import OWN, STARTED_FROM, Role, Roles, roles_of
from music_ray.rundir import RunDir
from tests.report.evaluation_folder import write_any_model
from tests.report.test_model_digest import write_model

NOTHING_FORMER: frozenset[str] = frozenset()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest of another test is found."""
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(tmp_path / "cache"))


def evaluated(run: RunDir, name: str, digest: str, started_from: str) -> Roles:
    """The roles in a run whose evaluation names these models."""
    folder = write_any_model(run)
    text = folder.read_text("evaluation.json")
    replaced = {
        f"untrained:{run.display()}": started_from,
        run.display("model"): name,
        "aaaaaaaa1": digest,
    }
    for before, after in replaced.items():
        text = text.replace(json.dumps(before), json.dumps(after))
    folder.write_text(text, "evaluation.json")
    return roles_of(run, collect(run))


@pytest.mark.parametrize(("recorded", "own"), [("", ""), ("d1", ""), ("", "d1")])
def test_without_two_digests_the_place_decides(
    recorded: str,
    own: str,
    make_run: Callable[..., RunDir],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run()
    roles = Roles(run, own, NOTHING_FORMER)
    monkeypatch.chdir(tmp_path)
    for name in (run.display("model"), "runs/small/model", "runs/small/model/"):
        assert roles.of(name, recorded) == Role(OWN, OWN)
    assert roles.of("untrained:runs/small", recorded) == Role(STARTED_FROM, STARTED_FROM)
    assert roles.of("untrained:runs/large", recorded).label == "untrained:runs/large"
    assert roles.of("runs/small", recorded) == Role(recorded or "runs/small", "runs/small")


def test_a_run_that_was_moved_knows_its_models(make_run: Callable[..., RunDir]) -> None:
    run = make_run("moved")
    write_model(run)
    roles = evaluated(run, "runs/old/model", model_digest(run), "untrained:runs/old")
    assert roles.of("runs/old/model", model_digest(run)) == Role(OWN, OWN)
    assert roles.of("untrained:runs/old/", "bbbbbbbb2") == Role(STARTED_FROM, STARTED_FROM)
    assert roles.of("untrained:runs/another", "cccccccc3").label == "untrained:runs/another"


def test_a_model_that_was_trained_again_in_its_place_is_another(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    write_model(run)
    roles = evaluated(run, run.display("model"), "aaaaaaaa1", f"untrained:{run.display()}")
    assert roles.of(run.display("model"), "aaaaaaaa1") == Role(
        "aaaaaaaa1",
        "…/small/model",
        "…/small/model holds another model now than the one that was evaluated under this name, which "
        "therefore is not called the run's model.",
    )
    assert roles.of("elsewhere/model", "aaaaaaaa1") == Role("aaaaaaaa1", "elsewhere/model")
    assert roles.of(f"untrained:{run.display()}", "bbbbbbbb2") == Role(STARTED_FROM, STARTED_FROM)


def test_without_a_recorded_digest_no_model_is_read(make_run: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make_run()
    write_model(run)
    assert roles_of(run, collect(run)).own == ""
    folder = write_any_model(run)
    text = folder.read_text("evaluation.json")
    folder.write_text(text.replace('"aaaaaaaa1"', '""').replace('"bbbbbbbb2"', '""'), "evaluation.json")
    assert roles_of(run, collect(run)).own == ""
    assert not (tmp_path / "cache").exists()
    folder.write_text(text, "evaluation.json")
    assert roles_of(run, collect(run)).own == model_digest(run) != ""
