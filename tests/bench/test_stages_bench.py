"""The benchmark of the stages that run in one process, on few rows."""

import json
from pathlib import Path

import pytest

from music_ray.bench import stages


@pytest.mark.slow
def test_every_stage_says_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    out = tmp_path / "stages.json"
    monkeypatch.setattr("sys.argv", ["stages", "--rows", "60", "--turns", "2", "--out", str(out)])
    stages.main()
    (found,) = json.loads(out.read_text())["measured"]
    assert found["rows"] == 60 and found["rollouts_bytes"] > 1000
    for stage in stages.STAGES:
        assert found[stage]["seconds"] > 0 and 0.05 < found[stage]["peak_gib"] < 5
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["seeds", "pairs", "mix"]
