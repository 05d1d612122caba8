"""What the gates read decides whether the pairs stage is up to date: by content, wherever it can be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray import gate_inputs as inputs
from music_ray.config import GatesConfig
from music_ray.config.load import resolve_config
from music_ray.gate_inputs import gate_inputs
from music_ray.rundir import FOLDERS, STAGES, RunDir


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    folder = tmp_path / "exam"
    folder.mkdir()
    pq.write_table(pa.table({"prompt": ["one", "two"]}), folder / "a.parquet")
    (folder / "b.jsonl").write_text('{"prompt": "three"}\n')
    return folder


@pytest.fixture
def my_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of gates in the working folder that must not be run to be looked at."""
    package = tmp_path / f"gates_{tmp_path.name.replace('-', '_')}"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('run')\n")
    (package / "polite.py").write_text("def polite(rollout):\n    return ''\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    return package / "polite.py"


def run_of(tmp_path: Path, **gates: Any) -> RunDir:
    return RunDir(
        resolve_config({"name": "r", "runs_dir": str(tmp_path / "runs"), "pairs": {"gates": gates}})
    )


def finished(run: RunDir) -> RunDir:
    run.open()
    for stage in STAGES:
        run.start_stage(stage)
        run.write_text("x", FOLDERS[stage], "result")
        run.finish_stage(stage, output=f"{stage}-1", seconds=1.0)
    assert unfinished(run) == []
    return run


def unfinished(run: RunDir) -> list[str]:
    return [stage for stage in STAGES if not run.is_finished(stage)]


def sets(*places: Path) -> list[dict[str, Any]]:
    return [{"path": str(place), "columns": ["prompt"]} for place in places]


def test_a_changed_evaluation_set_reruns_the_pairs_stage_alone(tmp_path: Path, exam: Path) -> None:
    run = finished(run_of(tmp_path, eval_sets=sets(exam)))
    file = exam / "b.jsonl"
    before, times = file.read_text(), file.stat()
    file.write_text('{"prompt": "THREE"}\n')
    assert file.stat().st_size == times.st_size
    assert unfinished(run) == ["pairs"]
    file.write_text(before)
    assert unfinished(run) == [], "the content counts, and not when it was written"
    (exam / "c.jsonl").write_text('{"prompt": "four"}\n')
    assert unfinished(run) == ["pairs"]


def test_the_same_files_elsewhere_have_the_same_digest(tmp_path: Path, exam: Path) -> None:
    (tmp_path / "moved").mkdir()
    moved = exam.rename(tmp_path / "moved" / "exam")
    pq.write_table(pa.table({"prompt": ["one", "two"]}), tmp_path / "other.parquet")
    found = [
        gate_inputs(GatesConfig.model_validate({"eval_sets": sets(place)}))
        for place in (moved, moved / "a.parquet", tmp_path / "other.parquet")
    ]
    assert found[0].keys() == {"eval_set exam"} and found[1]["eval_set a"] == found[2]["eval_set other"]
    assert found[0]["eval_set exam"] != found[1]["eval_set a"]


def test_a_changed_plugin_reruns_the_pairs_stage_and_is_not_run_for_it(
    tmp_path: Path, my_gates: Path
) -> None:
    run = finished(run_of(tmp_path, plugins=[f"{my_gates.parent.name}.polite:polite"]))
    my_gates.write_text("def polite(rollout):\n    return 'never'\n")
    assert unfinished(run) == ["pairs"]


def test_what_is_not_here_is_taken_for_unchanged(tmp_path: Path, exam: Path, my_gates: Path) -> None:
    """A run folder goes on to a machine for training without the files of its gates."""
    run = finished(run_of(tmp_path, eval_sets=sets(exam), plugins=[f"{my_gates.parent.name}.polite:polite"]))
    exam.rename(tmp_path / "away")
    my_gates.unlink()
    assert set(gate_inputs(run.config.pairs.gates).values()) == {None}
    assert unfinished(run) == []


def test_what_an_older_version_did_not_record_is_taken_for_unchanged(
    tmp_path: Path, exam: Path, my_gates: Path
) -> None:
    """Else the upgrade would make finished pairs, and the model trained on them, out of date."""
    run = finished(run_of(tmp_path, eval_sets=sets(exam), plugins=[f"{my_gates.parent.name}.polite:polite"]))
    manifest = run.manifest()
    reads = manifest["stages"]["pairs"]["made_from"]["reads"]
    recorded = [name for name in reads if name.startswith(("eval_set ", "plugin "))]
    assert len(recorded) == 2
    for name in recorded:
        del reads[name]
    run._write_manifest(manifest)
    assert unfinished(run) == []
    run.write_text("7\n", "pairs", "excluded.txt")
    assert unfinished(run) == ["pairs"], "of other files a missing word says that there were none"
    plain = finished(run_of(tmp_path / "plain"))
    assert set(plain.manifest()["stages"]["pairs"]["made_from"]["reads"]) == {"seeds", "generate"}
    named = run_of(tmp_path / "plain", eval_sets=sets(exam))
    assert unfinished(named) == ["pairs"], "a set that is named anew is a changed key"


def test_what_no_gate_reads_is_not_looked_at(exam: Path) -> None:
    hub = {"hub": "openai/openai_humaneval", "columns": ["prompt"]}
    assert gate_inputs(GatesConfig.model_validate({"eval_sets": [hub]})) == {}
    off = {"eval_sets": sets(exam), "eval_overlap": False}
    assert gate_inputs(GatesConfig.model_validate(off)) == {}


def test_of_a_large_file_size_time_and_ends_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "WHOLE_BYTES", 99)
    monkeypatch.setattr(inputs, "END_BYTES", 10)
    file = tmp_path / "large.jsonl"

    def digest(content: bytes, nanoseconds: int) -> str | None:
        file.write_bytes(content)
        os.utime(file, ns=(nanoseconds, nanoseconds))
        monkeypatch.setattr(inputs, "_seen", {})
        return gate_inputs(GatesConfig.model_validate({"eval_sets": sets(file)}))["eval_set large"]

    plain = digest(b"a" * 100, 10**18)
    assert digest(b"a" * 45 + b"b" * 10 + b"a" * 45, 10**18) == plain, "what lies between is not read"
    others = {digest(b"a" * 101, 10**18), digest(b"b" + b"a" * 99, 10**18), digest(b"a" * 99 + b"b", 10**18)}
    others.add(digest(b"a" * 100, 10**18 + 10**9))
    assert plain not in others and len(others) == 4
    monkeypatch.setattr(inputs, "WHOLE_BYTES", 100)
    whole = digest(b"a" * 100, 10**18)
    assert digest(b"a" * 45 + b"b" * 10 + b"a" * 45, 10**18) != whole == digest(b"a" * 100, 2 * 10**18)
