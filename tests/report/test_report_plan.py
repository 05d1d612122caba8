"""The report's comparison of plan and truth: from plan.json, the manifest and the shards alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from music_ray.jobs.usage import write_usage
from music_ray.judge.rows import job_name, verdict_folder
from music_ray.report.collect import collect
from music_ray.report.plan import Comparison, read_comparison
from music_ray.rundir import RunDir
from tests.report.report_folder import write_run
from tests.report.test_report_build import build


def write_plan(run: RunDir, **quantities: tuple[float, float, float]) -> None:
    """A plan.json with these numbers; '__' stands for the dot in their names."""
    first = {
        "num_seeds": 6,
        "rows_there": 0,
        "quantities": {
            name.replace("__", "."): {
                "low": low, "expected": expected, "high": high, "unit": "things", "basis": "a guess <b>",
            }
            for name, (low, expected, high) in quantities.items()
        },
    }  # fmt: skip
    run.write_text(json.dumps({"plan_version": 1, "first": first, "latest": {}}), "plan.json")


def compared(run: RunDir) -> Comparison:
    found = read_comparison(run, run.manifest())
    assert found is not None
    return found


def test_truth_comes_from_manifest_and_shards(run: RunDir) -> None:
    write_plan(
        run,
        generate__rollouts=(6, 6, 6),
        generate__calls__assistant=(6, 6, 6),
        generate__prompt_tokens=(10_000, 11_000, 11_500),
        generate__completion_tokens=(1_400, 1_500, 1_600),
        pairs__accepted=(4, 5, 6),
        mix__music=(1, 4, 5),
        train__wall_hours=(1, 1, 1),
    )
    rows = {row.label: row for row in compared(run).rows}
    # Nobody recorded how long the training steps took: the row is left out.
    assert {label: (row.truth, row.ratio, row.verdict) for label, row in rows.items()} == {
        "rollouts": (6, "100.0%", ""),
        "calls of the assistant": (6, "100.0%", ""),
        "prompt tokens": (12_000, "109.1%", "above the plan"),
        "completion tokens": (1_500, "100.0%", "as planned"),
        "accepted pairs": (3, "60.0%", "below the plan"),
        "MUSIC pairs in the mix": (3, "75.0%", "as planned"),
    }


def test_hours_and_cost_are_what_the_run_has_used(make_run: Callable[..., RunDir]) -> None:
    run = make_run(costs={"gpu_hour": 2.0}, engine={"gpus_per_engine": 1})
    write_run(run)
    write_usage(run, "generate", 1, {"engine_seconds": 5000.0})
    write_usage(run, "generate", 2, {"engine_seconds": 400.0})
    write_plan(run, generate__gpu_hours=(1, 1, 2), generate__cost=(2, 2, 4), generate__wall_hours=(0, 1, 2))
    rows = {row.label: row for row in compared(run).rows}
    assert rows["GPU hours of generate"].truth == 1.5
    assert rows["cost of generate"].truth == 3.0
    assert rows["hours of generate"].truth == pytest.approx(60 / 3600)


def test_what_the_judge_took_is_compared_over_all_its_starts(make_run: Callable[..., RunDir]) -> None:
    place = {"base_url": "http://127.0.0.1:1/v1", "input_price_per_million": 1000.0}
    engine = {"kind": "endpoint", "model": "m", "endpoint": place}
    run = make_run(pairs={"judge": {"engine": engine}})
    write_run(run)
    record = run.manifest()["stages"]["pairs"]
    counts = record["counts"] | {"judge": {"chosen": 3, "rejected": 1, "tie": 1, "invalid": 0, "errors": 1}}
    run.finish_stage("pairs", "x", 1.0, counts=counts)
    judge = run.config.pairs.judge
    assert judge.engine is not None
    name = job_name(verdict_folder(judge.engine, judge.sampling))
    write_usage(run, name, 1, {"engine_seconds": 1.0, "calls": 10, "prompt": 3_000, "completion": 90})
    write_usage(run, name, 2, {"engine_seconds": 1.0, "calls": 3, "prompt": 1_000, "completion": 10})
    write_usage(run, "judge-another", 1, {"engine_seconds": 1.0, "calls": 99, "prompt": 99, "completion": 9})
    planned = {"pairs": 5, "calls": 10, "prompt_tokens": 5_000, "completion_tokens": 100, "cost": 5}
    write_plan(run, **{f"judge__{what}": (number,) * 3 for what, number in planned.items()})
    assert {row.label: row.truth for row in compared(run).rows} == {
        "judged pairs": 6,
        "calls of the judge": 13,
        "prompt tokens of the judge": 4_000,
        "completion tokens of the judge": 100,
        "cost of the judge": 4.0,
    }


def test_without_a_plan_there_is_nothing_to_compare(run: RunDir) -> None:
    assert read_comparison(run, run.manifest()) is None
    assert "Plan against truth by stage" in build(run).text
    assert "before the first rollout" not in build(run).text


def test_the_page_shows_the_table(run: RunDir) -> None:
    write_plan(run, generate__prompt_tokens=(10_000, 11_000, 11_500))
    text = build(run).text
    assert "Planned for 6 seeds before the first rollout" in text
    assert "prompt tokens 10,000 11,000 11,500 12,000 109.1% above the plan a guess <b>" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"first": {"quantities": 3}}', '{"first": {}}'])
def test_a_damaged_plan_costs_the_table_alone(run: RunDir, content: str) -> None:
    run.write_text(content, "plan.json")
    data: Any = collect(run)
    assert data.plan is None
    assert [sentence for sentence in data.damage if sentence.startswith("plan.json could not be read")]
