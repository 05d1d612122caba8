"""The judge of the pairs stage on a real Ray: each pair is judged once, over several starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from music_ray.generate.pairs import run_pairs
from music_ray.jobs.usage import read_usage
from music_ray.rundir import RunDir
from music_ray.schema import Rollout

MakeRun = Callable[..., RunDir]
MakeRollout = Callable[..., Rollout]
WriteShard = Callable[[RunDir, str, list[Rollout]], None]
SCRIPTED = {"engine": {"kind": "scripted"}}


def jobs_of(run: RunDir) -> list[str]:
    """The records of jobs that were begun."""
    return sorted(path.name for path in Path(run.path("usage")).iterdir())


@pytest.mark.slow
def test_verdicts_come_through_a_real_ray_exactly_once(
    make_run: MakeRun, make_rollout: MakeRollout, write_shard: WriteShard
) -> None:
    """The scripted engine's own words hold no verdict: every pair is invalid, after four calls."""
    import ray

    def run_of(**judge: Any) -> RunDir:
        return make_run(
            pairs={"judge": {**SCRIPTED, **judge}, "gates": {"near_duplicate": False}},
            generate={"conversations_per_task": 4, "flush_rows": 8, "flush_seconds": 0.3},
            ray={"num_cpus": 2},
        )

    run = run_of()
    write_shard(run, "0001-a", [make_rollout(number) for number in range(40)])
    try:
        result = run_pairs(run)
        assert result["counts"]["accepted"] == 40 and result["counts"]["judge"]["invalid"] == 40
        rows = list(run.read_rows("judge"))
        assert len(rows) == len({row["id"] for row in rows}) == 40
        assert {(row["status"], row["first"], row["second"], row["engine"]) for row in rows} == {
            ("ok", "invalid", "invalid", "scripted")
        }
        assert sum(row["completion_tokens"] for row in rows) == result["judge"]["tokens"]["completion"] > 0
        name = "-".join(result["judge"]["verdicts"].split("/")[:-1])
        used = read_usage(run, name)
        assert used["engine_seconds"] > 0 and jobs_of(run) == [f"{name}-e0001.json"]

        again = run_pairs(run_of(on_invalid="refuse"))
        assert again["counts"]["refused"] == {"judge_disagrees": 40}
        assert (jobs_of(run), read_usage(run, name)) == ([f"{name}-e0001.json"], used), "nobody was asked"

        write_shard(run, "0002-a", [make_rollout(number) for number in range(40, 50)])
        assert run_pairs(run)["counts"]["judge"]["invalid"] == 50
        assert jobs_of(run) == [f"{name}-e0001.json", f"{name}-e0002.json"], "each start's usage is kept"
        added = [row for row in run.read_rows("judge") if row["id"] not in {one["id"] for one in rows}]
        assert len(list(run.read_rows("judge"))) == 50 and len(added) == 10
    finally:
        ray.shutdown()
