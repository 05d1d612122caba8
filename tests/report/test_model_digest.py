"""The digest of a run's own model: that of the evaluations, and read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from music_ray.model_folder import folder_digest
from music_ray.report.model_digest import model_digest
from music_ray.rundir import RunDir


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this machine's user."""
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_model(run: RunDir, weights: bytes = b"weights") -> None:
    """RUN/model, with files that decide a score and files that do not."""
    run.write_bytes(weights, "model", "model.safetensors")
    run.write_text("{}", "model", "config.json")
    run.write_text("card", "model", "README.md")
    run.write_text("{}", "model", ".hidden.json")


def test_it_is_the_digest_that_evaluations_record(make_run: Callable[..., RunDir], cache: Path) -> None:
    run = make_run()
    write_model(run)
    assert model_digest(run) == folder_digest(Path(run.path("model")))
    run.write_text("{{ messages }}", "model", "chat_template.jinja")
    assert model_digest(run) == folder_digest(Path(run.path("model")))


def test_a_model_is_read_once_until_a_file_is_written_anew(
    make_run: Callable[..., RunDir], cache: Path
) -> None:
    run = make_run()
    write_model(run)
    first = model_digest(run)
    (kept,) = (cache / "digests").iterdir()
    assert kept.read_text() == first
    kept.write_text("0123456789abcdef")
    assert model_digest(run) == "0123456789abcdef", "it was read again"
    Path(run.path()).rename(Path(run.path()).with_name("moved"))
    assert model_digest(make_run("moved")) == "0123456789abcdef", "it was read again after a move"
    write_model(make_run("moved"), b"weighty")  # as long as before
    assert model_digest(make_run("moved")) not in ("0123456789abcdef", first)


def test_a_damaged_or_unwritable_cache_costs_time_alone(make_run: Callable[..., RunDir], cache: Path) -> None:
    run = make_run()
    write_model(run)
    found = model_digest(run)
    (kept,) = (cache / "digests").iterdir()
    kept.write_bytes(b"\xff half")
    assert model_digest(run) == found
    kept.unlink()
    (cache / "digests").rmdir()
    (cache / "digests").write_text("a file where the folder should be")
    assert model_digest(run) == found


def test_a_run_without_a_model_has_none(make_run: Callable[..., RunDir], cache: Path) -> None:
    run = make_run()
    assert model_digest(run) == ""
    run.write_bytes(b"half a copy", "model", "model.safetensors")
    assert model_digest(run) == ""
    assert not cache.exists()
