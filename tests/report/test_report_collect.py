"""What the page knows, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from music_ray.report.collect import collect
from music_ray.report.evaluation import read_evaluation, sign_test
from music_ray.report.stages import Tokens, read_stages
from music_ray.report.training import read_training
from music_ray.rundir import RunDir
from tests.report.report_folder import write_scores


def test_stages_hold_plan_truth_and_counts(run: RunDir) -> None:
    stages = {stage.name: stage for stage in read_stages(run, run.manifest())}
    assert list(stages) == ["seeds", "generate", "pairs", "mix", "train", "evaluate", "report"]
    generate = stages["generate"]
    assert (generate.plan_seconds, generate.total_seconds, generate.over_plan) == (45, 60.0, True)
    assert stages["seeds"].over_plan is False
    assert generate.counts == [("seeds", 6), ("ok", 5)]
    assert [(one.label, one.rows) for one in generate.reasons] == [("errors", [("contrast_unparsed", 1)])]
    assert stages["train"].reasons == []
    assert [stage.state for stage in stages.values()] == ["done"] * 6 + ["this page"]


def test_stage_states(run: RunDir, make_run: Callable[..., RunDir]) -> None:
    run.start_stage("evaluate")
    changed = make_run(seed=0, mix={"held_out_fraction": 0.5})
    states = [stage.state for stage in read_stages(changed, changed.manifest())]
    # Another mix: mix itself is outdated, and nothing before or after it was made otherwise.
    assert states == ["done", "done", "done", "outdated", "done", "unfinished", "this page"]


def test_road_and_tokens(run: RunDir) -> None:
    data = collect(run)
    assert [(step.label, step.value, step.detail) for step in data.road] == [
        ("seeds", 6, "1 set aside"),
        ("rollouts", 5, "1 ended in an error"),
        ("accepted pairs", 3, "2 refused by a gate"),
        ("pairs in the mix", 43, "3 of them MUSIC pairs"),
        ("training steps", 4, "32 pairs seen"),
    ]
    assert data.tokens == Tokens(
        prompt=12000,
        cached=9000,
        completion=1500,
        per_pair={"prompt": 4000.0, "cached": 3000.0, "completion": 500.0},
        completion_per_second=25.0,
    )
    assert data.tokens.cached_share == 0.75


def test_last_line_of_a_step_counts_and_half_a_line_is_counted(run: RunDir) -> None:
    training = read_training(run)
    assert training is not None
    assert training.steps == [1, 2, 3, 4]
    assert training.series["loss"] == [0.8, 0.6, 0.5, 0.25]
    assert (training.num_repeated, training.num_unreadable) == (1, 1)
    assert (training.tokens, training.seconds) == (4000, 8.0)
    assert (training.start("loss"), training.end("loss")) == (0.8, 0.25)


def test_missing_values_of_a_step_are_gaps(run: RunDir) -> None:
    run.write_text('{"step": 1, "loss": null}\n{"step": 2, "loss": 0.5}\n[1]\n', "logs", "train.jsonl")
    training = read_training(run)
    assert training is not None
    assert math.isnan(training.series["loss"][0])
    assert training.series["loss"][1] == 0.5
    assert training.num_unreadable == 1


def test_evaluation_verdicts(run: RunDir) -> None:
    evaluation = read_evaluation(run)
    assert evaluation is not None
    preferences, music = evaluation.suites
    assert (music.verdict, music.gain, music.flips) == ("better", "+75.0 points", (6, 0))
    assert music.verdict_reason == "the intervals do not overlap"
    assert (preferences.verdict, preferences.flips) == ("not settled", (2, 0))
    assert preferences.verdict_reason == "the intervals overlap"
    assert music.turn_counts == [3, 10]
    assert evaluation.interval == "95%"
    assert evaluation.score_of("music-1") == [("trained", 1.0, 0.0), ("untrained", 0.0, 0.5)]
    assert evaluation.score_of("music-99") == []


def test_intervals_apart_settle_nothing_on_a_handful_of_pairs(run: RunDir) -> None:
    write_scores(run, "music-trained", [(1.0, 0.0)] * 5)
    write_scores(run, "music-untrained", [(0.0, 1.0)] * 5)
    evaluation = read_evaluation(run)
    assert evaluation is not None
    music = evaluation.suites[1]
    assert (music.flips, music.verdict) == ((5, 0), "not settled")
    assert music.verdict_reason == (
        "the intervals do not overlap, but too few pairs changed their order to rule out chance"
    )


@pytest.mark.parametrize(
    ("one", "other", "p_value"),
    [(0, 0, 1.0), (5, 0, 0.0625), (0, 6, 0.03125), (6, 2, 0.2890625), (4, 4, 1.0)],
)
def test_sign_test(one: int, other: int, p_value: float) -> None:
    assert sign_test(one, other) == p_value


def test_scores_that_are_not_finite_are_left_out_and_counted(run: RunDir) -> None:
    write_scores(run, "music-trained", [(1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0)])
    evaluation = read_evaluation(run)
    assert evaluation is not None
    scores = evaluation.suites[1].scores["trained"]
    assert (scores.ids, scores.margins, scores.num_not_finite) == (["music-1"], [1.0], 2)


def test_provenance_comes_from_the_rollouts(run: RunDir) -> None:
    assert collect(run).engines == [
        {"engine": "scripted", "model": "scripted-1", "model_revision": "rev-7", "prompt_hash": "cafe"}
    ]


def test_pairs_are_bounded_and_held_out_scores_are_attached(
    make_run: Callable[..., RunDir], run: RunDir
) -> None:
    data = collect(make_run(report={"max_pairs": 2}))
    assert (data.num_pairs, len(data.pairs)) == (3, 2)
    assert all(len(reading.scores) == 2 for reading in data.pairs)
    assert (data.num_refused, len(data.refused)) == (3, 3)


def test_nothing_has_run_yet(make_run: Callable[..., RunDir]) -> None:
    data = collect(make_run())
    assert {stage.state for stage in data.stages} == {"not run", "this page"}
    assert (data.training, data.evaluation, data.tokens, data.pairs, data.refused) == (
        None,
        None,
        None,
        [],
        [],
    )
    assert data.damage == []
    assert data.config_yaml.startswith("name: small\n")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("manifest.json",), "manifest.json could not be read: "),
        (("pairs", "train-00000.parquet"), "pairs could not be read: "),
        (("rollouts", "shards", "a.parquet"), "rollouts could not be read: "),
        (("scores", "music-trained.parquet"), "evaluation could not be read: "),
        (("logs", "train.jsonl"), "logs/train.jsonl could not be read: "),
        (("config.yaml",), "config.yaml could not be read: "),
    ],
)
def test_a_damaged_file_costs_its_part_alone(run: RunDir, parts: tuple[str, ...], said: str) -> None:
    run.write_bytes(b"PAR1 \xff\xfe damaged", *parts)
    data = collect(run)
    assert len(data.damage) == 1
    assert data.damage[0].startswith(said)
    assert data.stages or parts == ("manifest.json",)


def test_an_unreadable_evaluation_leaves_the_scores(run: RunDir) -> None:
    run.write_text("{", "evals", "pairwise.json")
    evaluation = read_evaluation(run)
    assert evaluation is not None
    assert [(suite.name, suite.verdict, suite.num_pairs) for suite in evaluation.suites] == [
        ("music", "", 8),
        ("preferences", "", 4),
    ]
