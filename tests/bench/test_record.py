"""What a benchmark leaves behind."""

import json
from pathlib import Path

import pytest

from music_ray.bench.record import write_facts


def test_facts_are_written_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs" / "bench" / "x.json"
    write_facts(path, {"seconds": 75.0, "rows": [1, 2]})
    assert json.loads(path.read_text()) == {"seconds": 75.0, "rows": [1, 2]}
    assert capsys.readouterr().out.rstrip().endswith(f"{path} written after 1 min 15 s")
    write_facts(str(path), {"rows": [3]})
    assert json.loads(path.read_text()) == {"rows": [3]} and path.read_text().endswith("}\n")
    assert capsys.readouterr().out.rstrip().endswith(f"{path} written")
    write_facts(path, {"rows": []}, tell=False)
    assert json.loads(path.read_text()) == {"rows": []} and capsys.readouterr().out == ""
