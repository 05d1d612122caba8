"""A run whose every file lies on S3: data, configuration values, and what a whole road leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from music_ray.rundir import open_filesystem
from music_ray.storage import put
from tests.flaky_store import uri_of
from tests.reward.conftest import NUMBERS


def write_data(port: int, num_pairs: int) -> str:
    """Preference pairs in the S3 store; the URI of the file."""
    return write_pairs(uri_of(port, "bucket/data/pairs.jsonl"), num_pairs)


def write_pairs(uri: str, num_pairs: int) -> str:
    """Preference pairs at that place of any store; the same URI."""
    lines = []
    for number in range(num_pairs):
        opening = [{"role": "user", "content": f"Please tell me about topic {number}."}]
        good, bad = NUMBERS[number % 10], NUMBERS[(number + 3) % 10]  # words that the tiny model knows
        chosen = [*opening, {"role": "assistant", "content": f"red {good} of topic {number}"}]
        rejected = [*opening, {"role": "assistant", "content": f"green {bad} {bad} of {number}"}]
        lines.append(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    fs, path = open_filesystem(uri)
    put(fs, path, "".join(lines).encode())
    return uri


def run_values(
    port: int, data: str, base_model: Path | None = None, *, held_out: float = 0.2, **sections: Any
) -> dict[str, Any]:
    """The configuration of a run in the store, with the scripted engine and a tiny model."""
    values: dict[str, Any] = {
        "name": "a",
        "runs_dir": uri_of(port, "bucket/runs"),
        "data": {"sources": [{"path": data}], "held_out_fraction": held_out},
        "engine": {"kind": "scripted"},
        "user": {"mode": "template"},
        "contrast": {"mode": "resample"},
        "generate": {"turns": 2, "flush_rows": 20, "flush_seconds": 1.0, "canary": {"seeds": 0}},
        "mix": {"held_out_fraction": 0.2},
        "ray": {"num_cpus": 2},
    }
    if base_model is not None:
        values["train"] = {
            "base_model": str(base_model),
            "num_workers": 2,
            "steps": 4,
            "pairs_per_step": 6,
            "learning_rate": 1e-3,
            "max_tokens": 128,
            "checkpoint_every": 2,
        }
    return {**values, **sections}


def rows_of(run: Any, *parts: str, columns: list[str]) -> list[dict[str, Any]]:
    """All rows of a folder of the run."""
    return list(run.read_rows(*parts, columns=columns))
