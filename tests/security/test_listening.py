"""What the product starts on one machine is reached from that machine alone: a run with real engines.

Cheaper looks at the same stand in tests/reward/test_train.py, tests/score/test_serve.py and
tests/test_ray_session.py.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.engines.tiny_model import make_tiny_model
from tests.security.watching import run_watched

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.faults  # for its minutes
@pytest.mark.timeout(500)
def test_a_run_with_vllm_and_two_training_workers_listens_here_alone(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))  # short: Ray's sockets lie below
    model = make_tiny_model(folder / "model")
    config = {
        "name": "run",
        "data": {"sources": [{"path": "sample"}], "held_out_fraction": 0.2},
        "seeds": {"num_seeds": 8},
        "engine": {
            "model": model, "max_model_len": 512, "max_num_seqs": 8, "kv_cache_gib": 0.1,
            "enforce_eager": True,
        },
        "user": {"mode": "template", "sampling": {"max_tokens": 8}},
        "assistant": {"sampling": {"max_tokens": 8}},
        "contrast": {"mode": "neighbour"},
        "generate": {"turns": 1, "canary": {"seeds": 0}},
        "mix": {"include_music": False},
        "train": {
            "base_model": model, "num_workers": 2, "steps": 2, "pairs_per_step": 4, "max_tokens": 256,
            "over_length": "cut",
        },
        "ray": {"num_cpus": 2, "object_store_gib": 0.1},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"PYTHONPATH": str(ROOT), "HOME": str(folder), "RAY_TMPDIR": str(folder / "ray")}
    try:
        seen = run_watched(
            [sys.executable, "-m", "music_ray", "run", "run.yaml"], timeout=450, cwd=folder, env=kept
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert seen.code == 0, seen.out + seen.err
    assert len(seen.listening) > 5
    assert seen.listening_elsewhere == set()
