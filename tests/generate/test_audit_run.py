"""`music-ray audit`: of a run folder, of a file of pairs, and as a check."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from music_ray import schema
from music_ray.errors import InputError, StageError
from music_ray.generate.audit.run import audit_path, check_below, is_run_folder, run_audit
from music_ray.generate.audit.text import show
from music_ray.rundir import RunDir
from music_ray.schema import PreferencePair
from tests.generate.audit_samples import CONFIG, make_pairs, nonsense

AUDIT = {"bootstrap_samples": 100}


def write_pairs(run: RunDir, pairs: list[PreferencePair], *parts: str) -> None:
    for number in range(2):  # two files: a sample goes over all of them
        table = schema.to_table(pairs[number::2], schema.PAIR_SCHEMA)
        run.write_table(table, *parts, f"train-{number}.parquet")


@pytest.fixture
def finished(make_run: Callable[..., RunDir]) -> RunDir:
    """A run with 60 MUSIC pairs whose rejected side is longer, and 50 pairs of D without a shortcut."""
    run = make_run(audit=AUDIT)
    run.open()
    longer = make_pairs(60, 1, rejected_reply=lambda words, rng: nonsense(rng, 60))
    write_pairs(run, longer, "pairs")
    write_pairs(run, make_pairs(50, 2, turns=1), "seeds", "preferences", "train")
    run.finish_stage("pairs", "digest-1", 1.0)
    return run


def test_a_run_is_audited_beside_its_preferences(finished: RunDir) -> None:
    audit = run_audit(finished)
    assert (audit.num_pairs, audit.origin) == (60, "D_MUSIC")
    assert audit.views["surface/whole"].auc == 1.0
    assert audit.preferences is not None
    assert audit.preferences.num_pairs == 50
    assert audit.preferences.views["tfidf/user"].auc is None
    written = json.loads(finished.read_text("audit", "audit.json"))
    assert (written.pop("audit_version"), written.pop("pairs_output")) == (1, "digest-1")
    assert written == json.loads(json.dumps(audit.as_json()))
    before = finished.read_bytes("audit", "audit.json")
    run_audit(finished)
    assert finished.read_bytes("audit", "audit.json") == before


def test_a_sample_is_taken_over_all_files_and_only_it_is_read(make_run: Callable[..., RunDir]) -> None:
    run = make_run(audit=AUDIT | {"max_pairs": 41}, seed=3)
    pairs = make_pairs(60, 1)
    write_pairs(run, pairs, "pairs")
    audit = run_audit(run)
    assert (audit.num_pairs, audit.num_available, audit.preferences) == (41, 60, None)
    whole = make_run("whole", audit=AUDIT | {"max_pairs": 41}, seed=3)
    whole.write_table(schema.to_table(pairs[::-1], schema.PAIR_SCHEMA), "pairs", "train.parquet")
    assert run_audit(whole) == audit


def test_a_run_without_pairs(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    with pytest.raises(InputError) as caught:
        run_audit(run)
    assert str(caught.value) == f"{run.display('pairs')} holds no pairs: run `music-ray pairs` first"
    assert not run.exists("audit")


def test_a_file_or_folder_of_pairs(finished: RunDir, write_jsonl: Callable[..., str], tmp_path: Path) -> None:
    (Path(finished.path("pairs")) / "gates.jsonl").write_text('{"id": 1}\n')
    audit = audit_path(finished.display("pairs"), CONFIG)
    assert (audit.num_pairs, audit.num_available, audit.origin) == (60, 60, "pairs")
    assert audit.views["surface/whole"].auc == 1.0
    assert len(audit.remedies) == 1 and audit.remedies[0].startswith("leave out pairs")
    rows = [{"prompt": f"Q{one}?", "chosen": f"Yes {one}.", "rejected": "No."} for one in range(45)]
    file = write_jsonl(*rows)
    assert audit_path(file, CONFIG).num_pairs == 45
    assert audit_path(file, CONFIG.model_copy(update={"max_pairs": 40})).num_available == 45
    (tmp_path / "empty").mkdir()
    for place, reason in (("none.parquet", "no file or folder at "), ("empty", "the folder ")):
        with pytest.raises(InputError) as caught:
            audit_path(str(tmp_path / place), CONFIG)
        assert str(caught.value).startswith(
            f"{tmp_path / place} is no run folder (it has no config.yaml), and no preference pairs: {reason}"
        )


def test_what_is_a_run_folder(finished: RunDir, tmp_path: Path) -> None:
    assert is_run_folder(finished.display()) and is_run_folder(finished.display() + "/")
    assert is_run_folder(f"file://{finished.path()}".rstrip("/"))
    assert is_run_folder("configs/demo.yaml")
    assert not is_run_folder(finished.display("pairs"))
    assert not is_run_folder(str(tmp_path / "none"))


def test_an_audit_can_be_a_check(finished: RunDir) -> None:
    audit = run_audit(finished)
    with pytest.raises(StageError) as caught:
        check_below(audit, 0.9)
    assert str(caught.value) == (
        "surface/whole tells chosen from rejected with AUC 1.00, above --fail-above 0.9: see "
        "docs/explanation/shortcut-audit.md"
    )
    check_below(audit, 1.0)
    few = audit_path(finished.display("seeds/preferences/train"), CONFIG.model_copy(update={"min_pairs": 51}))
    with pytest.raises(StageError) as caught:
        check_below(few, 0.9)
    assert str(caught.value) == (
        "--fail-above 0.9 can't be checked: No AUC was measured: 50 pairs are too few (audit.min_pairs "
        "is 51)."
    )


def test_the_table_says_it_in_words(finished: RunDir) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    show(run_audit(finished), console)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert (
        lines[0] == "AUC of a linear model on 60 pairs of 60 conversations, with 95% intervals; 0.5 is a coin"
    )
    assert "features/part D_MUSIC D carried by" in lines
    assert any(line.startswith("surface/whole 1.00 (1.00 to 1.00) 0.") for line in lines)
    assert "complaints user messages 0 of 60 (0.0%) 0 of 60 (0.0%)" in lines
    assert any(
        line.startswith("A linear model tells chosen from rejected by surface/whole") for line in lines
    )
    assert any(line.startswith("remedy: the sides differ in length") for line in lines)


@pytest.mark.slow
def test_the_command(finished: RunDir) -> None:
    def music_ray(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "music_ray", "audit", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = music_ray(finished.display())
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: surface/whole: AUC 1.00" in done.stdout
    assert finished.exists("audit", "audit.json")
    done = music_ray(finished.display("pairs"), "--fail-above", "0.9")
    assert done.returncode == 3
    assert done.stderr.startswith("music-ray: surface/whole tells chosen from rejected with AUC 1.00")
    done = music_ray("no-such-place")
    assert (done.returncode, done.stdout) == (2, "")


def test_the_preferences_of_the_development_data(shared_data: Path) -> None:
    """Nothing tells its sides apart well, and they differ in their last reply alone."""
    audit = audit_path(str(shared_data / "preferences" / "dev.parquet"), CONFIG)
    assert audit.num_pairs > 400
    whole = audit.views["surface/whole"]
    assert whole.auc is not None and 0.45 < whole.auc < 0.7
    assert audit.views["surface/user"].reason == "the user messages are the same on both sides"
    assert audit.views["tfidf/whole"] == audit.views["tfidf/last_reply"]
    assert [(turn.turn, turn.user) for turn in audit.turns] == [(1, None)]
    assert audit.warnings == []
