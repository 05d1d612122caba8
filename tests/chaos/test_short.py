"""`make chaos` in a minute: a few faults, the counts, the file and the exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.scene import ROOT


@pytest.mark.slow
@pytest.mark.faults
def test_a_short_run_loses_nothing_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    words = ["--scene", "generate", "--minutes", "1", "--seeds", "150", "--seed", "3", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(out.read_text())
    assert facts["problems"] == []
    [scene] = facts["scenes"]
    assert {name: scene[name] for name in ("seeds", "lost", "duplicated", "given up", "made again")} == {
        "seeds": 150,
        **dict.fromkeys(("lost", "duplicated", "given up", "made again"), 0),
    }
    assert sum(kind["lost"] for kind in scene["recovery_seconds"].values()) == scene["faults_struck"] >= 1
    assert f"generate: {scene['faults_struck']} of {scene['faults_planned']} faults struck\n" in done.stdout
