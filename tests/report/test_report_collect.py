"""What the page knows, as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from music_ray import schema
from music_ray.report.build import render
from music_ray.report.collect import collect
from music_ray.report.evaluation import Suite, read_evaluation
from music_ray.report.stages import Tokens, read_stages
from music_ray.report.training import read_training
from music_ray.rundir import RunDir
from tests.report.report_folder import make_estimate, make_pair, write_earlier_evaluation, write_scores


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


def suites_of(run: RunDir) -> list[Suite]:
    evaluation = read_evaluation(run)
    assert evaluation is not None
    return evaluation.suites


def test_evaluation_verdicts(run: RunDir) -> None:
    evaluation = read_evaluation(run)
    assert evaluation is not None
    preferences, music = evaluation.suites
    assert (music.verdict, music.gain, music.flips) == ("better", "+75.0 points", (6, 0))
    assert music.verdict_reason == (
        "+75.0 points (+50.0 to +100.0), p = 0.0312 by exchanges of whole contexts"
    )
    assert (preferences.verdict, preferences.flips) == ("not settled", (2, 0))
    assert preferences.verdict_reason == (
        "+50.0 points (−25.0 to +100.0), p = 0.5000 by exchanges of whole contexts: the interval holds 0"
    )
    assert evaluation.interval == "95%"
    assert evaluation.score_of("music-1") == [("trained", 1.0, 0.0), ("untrained", 0.0, 0.5)]
    assert evaluation.score_of("music-99") == []


def test_breakdowns_are_rows_and_one_into_a_single_part_is_none(run: RunDir) -> None:
    _, music = suites_of(run)
    assert [label for label, _ in music.rows] == [
        "all",
        "3 turns",
        "10 turns",
        "source kitchen ",
        "source web",
    ]
    assert [[model for model, _ in models] for _, models in music.rows] == [["trained", "untrained"]] * 5
    web = dict(music.rows)["source web"][0][1]
    assert (web.num_pairs, web.num_contexts, web.margin_length) == (1, 9, 0.25)


def compared(run: RunDir, difference: float, low: float, high: float, p_value: float) -> Suite:
    """The suite of MUSIC pairs with another comparison; the two models' own intervals overlap."""
    document = json.loads(run.read_text("evals", "pairwise.json"))
    music = document["suites"]["music"]
    music["models"]["trained"]["overall"] |= make_estimate(0.7, 0.6, 0.8)
    music["models"]["untrained"]["overall"] |= make_estimate(0.65, 0.55, 0.75)
    music["comparisons"][0]["overall"] |= {
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "p_value": p_value,
    }
    run.write_text(json.dumps(document), "evals", "pairwise.json")
    return suites_of(run)[1]


def test_a_gain_over_the_same_pairs_is_settled_where_the_models_own_intervals_overlap(run: RunDir) -> None:
    music = compared(run, 0.05, 0.02, 0.08, 0.00001)
    assert music.verdict == "better"
    assert music.verdict_reason == ("+5.0 points (+2.0 to +8.0), p < 0.0001 by exchanges of whole contexts")
    assert compared(run, -0.05, -0.08, -0.02, 0.001).verdict == "worse"


def test_a_narrow_interval_settles_nothing_that_the_exact_test_calls_chance(run: RunDir) -> None:
    music = compared(run, 1.0, 1.0, 1.0, 0.0625)
    assert music.verdict == "not settled"
    assert music.verdict_reason == (
        "+100.0 points (+100.0 to +100.0), p = 0.0625 by exchanges of whole contexts: it could be chance"
    )
    assert compared(run, 0.05, -0.01, 0.1, 0.04).verdict == "not settled"


def test_an_earlier_evaluation_is_tested_from_its_scores(run: RunDir) -> None:
    write_earlier_evaluation(run)
    preferences, music = suites_of(run)
    assert music.paired is not None
    assert (music.paired.p_value, music.paired.difference.value, music.paired.num_contexts) == (
        pytest.approx(2 / 2**6),
        0.75,
        8,
    )
    assert (music.verdict, preferences.verdict) == ("better", "not settled")
    # 1/32 lies between two numbers of four decimals, and the test is exact but for the last bit.
    assert music.verdict_reason.startswith("+75.0 points (no interval recorded), p = 0.031")
    assert [label for label, _ in music.rows] == ["all", "3 turns", "10 turns"]
    assert math.isnan(music.models[0].overall.margin_length)


def test_pairs_of_one_context_are_one_trial(run: RunDir) -> None:
    write_earlier_evaluation(run)
    pairs = [replace(make_pair(number), conversation=number % 2) for number in range(1, 9)]
    run.write_table(schema.to_table(pairs, schema.PAIR_SCHEMA), "mix", "held_out", "music.parquet")
    music = suites_of(run)[1]
    assert music.paired is not None
    # Six pairs changed, three in each of two contexts: of four flips two are as far from 0.
    assert (music.paired.p_value, music.paired.num_contexts) == (pytest.approx(0.5), 2)
    assert music.verdict == "not settled"


def test_an_earlier_evaluation_whose_pairs_are_gone_is_not_tested(run: RunDir) -> None:
    write_earlier_evaluation(run)
    run.clear("mix", "held_out")
    music = suites_of(run)[1]
    assert (music.verdict, music.gain, music.paired) == ("not tested", "+75.0 points", None)
    assert music.verdict_reason == (
        "whether the difference could be chance is not known: this evaluation holds no comparison pair by "
        "pair, and the scores or the held-out pairs are gone"
    )


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


def put(run: RunDir, keys: tuple[str, ...], value: object) -> None:
    """Sets one value of evals/pairwise.json."""
    document = json.loads(run.read_text("evals", "pairwise.json"))
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    run.write_text(json.dumps(document), "evals", "pairwise.json")


@pytest.mark.parametrize(
    ("keys", "value", "error"),
    [
        (("suites",), ["music"], "ValueError: "),
        (("suites", "music"), None, "AttributeError: 'NoneType' object has no attribute 'get'"),
        (("suites", "music", "models"), ["x"], "AttributeError: 'list' object has no attribute 'items'"),
        (("suites", "music", "comparisons"), [1], "AttributeError: 'int' object has no attribute 'get'"),
        (("suites", "music", "num_pairs"), "x", "ValueError: invalid literal for int() with base 10: 'x'"),
        (("suites", "music", "num_pairs"), math.inf, "OverflowError: "),
    ],
)
def test_an_evaluation_of_another_form_costs_its_section_alone(
    keys: tuple[str, ...], value: object, error: str, run: RunDir
) -> None:
    put(run, keys, value)
    data = collect(run)
    (sentence,) = data.damage
    assert sentence.startswith(f"evaluation could not be read: evals/pairwise.json is damaged ({error}")
    assert sentence.endswith(f"): remove {run.display('evals')} and run music-ray evaluate CONFIG again")
    assert data.evaluation is None
    assert data.training is not None and len(data.pairs) == 3 and len(data.any_models) == 1
    assert "evals/pairwise.json is damaged" in render(data)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"step": 9, "tokens": "x"}', "ValueError: invalid literal for int() with base 10: 'x'"),
        ('{"step": 9, "seconds": [1]}', "TypeError: float() argument must be a string or a real number"),
    ],
)
def test_a_line_of_the_log_with_another_kind_of_value_costs_the_curves_alone(
    line: str, error: str, run: RunDir
) -> None:
    run.write_text(f"{run.read_text('logs', 'train.jsonl')}\n{line}\n", "logs", "train.jsonl")
    data = collect(run)
    (sentence,) = data.damage
    assert sentence.startswith(f"logs/train.jsonl could not be read: a line of it is damaged ({error}")
    assert sentence.endswith("): remove that line")
    assert data.training is None and data.evaluation is not None


@pytest.mark.parametrize("id_", ['"abc"', "null", "[4]", "1e999", "9223372036854775808"])
def test_a_refusal_of_no_rollout_costs_the_refusals_alone(id_: str, run: RunDir) -> None:
    gates = run.read_text("pairs", "gates.jsonl")
    run.write_text(f'{gates}{{"id": {id_}, "reason": "looping"}}\n', "pairs", "gates.jsonl")
    data = collect(run)
    (sentence,) = data.damage
    assert sentence.startswith("pairs/gates.jsonl could not be read: pairs/gates.jsonl is damaged (")
    assert sentence.endswith("): remove the line with that id")
    assert (data.num_refused, data.refused, len(data.pairs)) == (0, [], 3)


def test_a_stage_without_a_record_of_its_form_costs_the_stages_alone(run: RunDir) -> None:
    manifest = run.manifest()
    manifest["stages"]["generate"]["tokens"]["prompt"] = "x"
    run._write_manifest(manifest)
    data = collect(run)
    assert data.damage == [
        "manifest.json could not be read: the record of generate in it is damaged (ValueError: invalid "
        "literal for int() with base 10: 'x'): restore it"
    ]
    assert data.tokens is None and data.stages and data.evaluation is not None
    manifest["stages"]["pairs"] = 7
    run._write_manifest(manifest)
    data = collect(run)
    assert any("a stage's record in it is damaged (AttributeError" in one for one in data.damage)
    assert data.stages == [] and data.evaluation is not None


def test_an_unreadable_evaluation_leaves_the_scores(run: RunDir) -> None:
    run.write_text("{", "evals", "pairwise.json")
    evaluation = read_evaluation(run)
    assert evaluation is not None
    assert [(suite.name, suite.verdict, suite.num_pairs) for suite in evaluation.suites] == [
        ("music", "", 8),
        ("preferences", "", 4),
    ]
