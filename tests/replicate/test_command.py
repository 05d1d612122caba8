"""The whole road of the miniature for real, at its smallest: vLLM, Ray, ZeRO-3, scores, table."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from music_ray.miniature.split_gate import first_foreign_list

ROOT = Path(__file__).resolve().parents[2]


def replicate(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "music_ray", "replicate", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replication")
    done = replicate("configs/miniature.yaml", "--scale", "smoke", "--out", str(folder))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_effect_has_its_direction(result: dict[str, Any]) -> None:
    """Contrasts in earlier turns are found more often by who was trained on them."""
    accuracy = result["accuracy"]["S1"]
    assert accuracy["A1"]["value"] > accuracy["A0"]["value"]


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_arms_have_as_many_pairs_of_the_training_split(folder: Path) -> None:
    rows = {arm: pq.read_table(folder / "arms-data" / f"{arm}.parquet").to_pylist() for arm in ("A0", "A1")}
    assert len(rows["A0"]) == len(rows["A1"]) == 250
    for messages in (row[side] for row in rows["A1"] for side in ("chosen", "rejected")):
        assert first_foreign_list(messages, "train") == ""


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_arms_have_as_many_tokens(result: dict[str, Any]) -> None:
    tokens = result["tokens_of_all"]
    assert tokens["A1"] == pytest.approx(tokens["A0"], rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_table_says_what_the_results_say(folder: Path, result: dict[str, Any]) -> None:
    text = (folder / "table.md").read_text()
    assert text in (folder / "stdout.txt").read_text()
    for suite in ("S1", "S7", "dev_S7"):
        assert (
            f"| {suite} | {result['num_pairs'][suite]} | {result['accuracy'][suite]['A0']['value']:.3f} ["
            in text
        )
    assert [one["name"] for one in result["findings"]] == ["ready", "H4"]


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_again_it_makes_nothing_twice(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    done = replicate("configs/miniature.yaml", "--scale", "smoke", "--out", str(folder))
    assert done.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
    assert "train: starting" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_outcomes_alone_give_the_same_table(folder: Path, tmp_path: Path) -> None:
    """Published, they are enough: no rollout, no model and no score is there, and none is made."""
    for part in ("world", "arms-data", "outcomes"):
        shutil.copytree(folder / part, tmp_path / part)
    shutil.copy(folder / "replication.json", tmp_path)
    done = replicate("configs/miniature.yaml", "--scale", "smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == (folder / "table.md").read_text()
    assert not [name for name in ("rollouts", "arms", "scores", "base-model") if (tmp_path / name).exists()]


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_another_scale_is_refused(folder: Path) -> None:
    done = replicate("configs/miniature.yaml", "--out", str(folder))
    assert done.returncode == 2
    assert (
        done.stderr.strip() == f"music-ray: {folder} holds a replication of another scale: name another --out"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "no configuration at nowhere.yaml: name configs/miniature.yaml"),
        (
            ["configs/miniature.yaml", "--out", "s3://bucket/a"],
            "--out s3://bucket/a: a replication needs a local folder",
        ),
        (
            ["configs/miniature.yaml", "generate.turns=5"],
            "generate.turns=5: a replication sets generate.turns itself; leave it out",
        ),
    ],
)
def test_mistakes_are_said_before_anything_starts(words: list[str], message: str) -> None:
    done = replicate(*words)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False)
