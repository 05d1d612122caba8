"""Two runs side by side: what is the same, what differs, and whether numbers are of the same pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from music_ray import schema
from music_ray.errors import ConfigError
from music_ray.report.collect import collect
from music_ray.report.command import name_evaluations, report_command, report_of_two
from music_ray.report.parts import Part
from music_ray.report.roles import OWN, STARTED_FROM
from music_ray.report.side_by_side import parts
from music_ray.rundir import RunDir
from tests.report.evaluation_folder import write_any_model, write_best_of_n, write_held_out
from tests.report.report_folder import make_pair, write_run, write_scores
from tests.report.test_model_digest import write_model
from tests.report.test_report_build import Page


@pytest.fixture
def other(make_run: Callable[..., RunDir]) -> RunDir:
    """Another finished run, of another schedule and seed."""
    made = make_run("other", seed=7, contrast={"schedule": "from_turn:2"})
    write_run(made)
    write_held_out(made)
    write_any_model(made)
    write_best_of_n(made)
    return made


def tables(first: RunDir, second: RunDir) -> dict[str, Part]:
    """The page's tables by title."""
    return {part.title: part for part in parts((first, collect(first)), (second, collect(second)))}


def test_configurations_differ_in_the_keys_that_were_changed(run: RunDir, other: RunDir) -> None:
    assert tables(run, other)["Configuration"].rows == [
        ("seed", "0", "7"),
        ("contrast.schedule", "all", "from_turn:2"),
    ]
    assert tables(run, other)["Provenance"].rows == []


def test_counts_losses_and_tokens(run: RunDir, other: RunDir) -> None:
    manifest = other.manifest()
    manifest["stages"]["pairs"]["counts"] = {"rollouts": 6, "accepted": 5, "refused": {"too_long": 1}}
    other._write_manifest(manifest)
    found = tables(run, other)
    rows = {label: cells for label, *cells in found["How far the data came"].rows}
    assert rows["accepted pairs"] == ["3", "5"]
    assert rows["pairs, refused: looping"] == ["1", "0"]
    assert rows["pairs, refused: too long"] == ["0", "1"]
    tokens = {label: cells for label, *cells in found["Tokens"].rows}
    assert tokens["completion"] == ["1,500", "1,500"]
    assert tokens["completion, for one accepted pair"] == ["500", "300"]
    assert {label: cells for label, *cells in found["Time"].rows}["generate"] == ["1 min 00 s", "1 min 00 s"]


def test_accuracies_and_who_is_right_on_the_same_pairs(run: RunDir, other: RunDir) -> None:
    write_scores(other, "music-trained", [(0.0, 1.0)] * 3 + [(1.0, 0.0)] * 5)
    part = tables(run, other)["Accuracy on held-out pairs"]
    rows = {label: cells for label, *cells in part.rows}
    assert rows["MUSIC pairs, trained"] == ["87.5% (75.0% to 100.0%) of 4"] * 2
    assert rows["MUSIC pairs: trained against untrained"][0] == "better, +75.0 points"
    # The first is right on all but the fourth pair, the second on the last five.
    assert part.notes[1] == (
        "MUSIC pairs: 8 pairs were scored in both runs; the first run's model alone is right on 3 of them, "
        "the second's alone on 1 (p = 0.6250 by exchanges of whole contexts)."
    )


def test_pairs_of_one_context_are_one_trial_between_runs_too(run: RunDir, other: RunDir) -> None:
    write_scores(other, "music-trained", [(0.0, 1.0)] * 3 + [(1.0, 0.0)] * 5)
    pairs = [replace(make_pair(number), conversation=min(number, 3)) for number in range(1, 9)]
    table = schema.to_table(pairs, schema.PAIR_SCHEMA)
    for one in (run, other):
        one.write_table(table, "mix", "held_out", "music.parquet")
    # The contexts sum to 1, 1 and, of six pairs, 1 − 1: two flips of four are as far from 0.
    assert (
        tables(run, other)["Accuracy on held-out pairs"]
        .notes[1]
        .endswith("the second's alone on 1 (p = 0.5000 by exchanges of whole contexts).")
    )


def test_pairs_of_one_id_with_other_words_are_not_the_same(run: RunDir, other: RunDir) -> None:
    pairs = [make_pair(number, text="said otherwise") for number in range(1, 9)]
    table = schema.to_table(pairs, schema.PAIR_SCHEMA)
    other.write_table(table, "mix", "held_out", "music.parquet")
    notes = tables(run, other)["Accuracy on held-out pairs"].notes
    assert (
        "MUSIC pairs: no pair was scored in both runs, so the two accuracies are of different pairs." in notes
    )


def test_models_that_play_the_same_part_share_a_row(run: RunDir, other: RunDir) -> None:
    found = tables(run, other)
    assert found["Accuracy on any pairs"].rows == [
        (f"dev, {OWN}", "75.0% (70.0% to 80.0%) of 4", "75.0% (70.0% to 80.0%) of 4"),
        (f"dev, {STARTED_FROM}", "25.0% (20.0% to 30.0%) of 4", "25.0% (20.0% to 30.0%) of 4"),
    ]
    falls = {label: cells for label, *cells in found["Turn-sensitivity"].rows}
    assert (
        falls[f"dev, {STARTED_FROM}, another conversation's reply: all earlier"]
        == ["+0.00 (−0.10 to +0.10), no fall seen"] * 2
    )
    wins = {label: cells for label, *cells in found["Win rates in best-of-N"].rows}
    assert (
        wins[f"{OWN} against random picks, by turn, N = 4, judged by judge"]
        == ["62.5% (50.0% to 75.0%) of 19, 1 left out"] * 2
    )
    assert wins[f"{OWN} against random picks, by whole, N = 4, judged by judge"] == ["—", "—"]


def test_other_pairs_of_one_name_are_said(run: RunDir, other: RunDir) -> None:
    text = other.read_text("evaluations", "dev", "evaluation.json").replace("c0ffee", "decaf")
    other.write_text(text, "evaluations", "dev", "evaluation.json")
    notes = tables(run, other)["Accuracy on any pairs"].notes
    assert notes == ["dev: other pairs in one run than in the other."]


def test_win_rates_of_other_turns_or_judges_are_said(run: RunDir, other: RunDir) -> None:
    unknown = (
        "Which prompts a win rate is of is not in its results: compare runs only where best_of_n.prompts, "
        "sources and num_prompts were the same."
    )
    assert tables(run, other)["Win rates in best-of-N"].notes == [unknown]
    file = ("evaluations", "bon", "results.json")
    other.write_text(
        other.read_text(*file).replace("judge-1", "judge-2").replace('"turns": 3', '"turns": 1'), *file
    )
    assert tables(run, other)["Win rates in best-of-N"].notes == [
        f"{OWN} against random picks, judged by judge: 3 turns, judge-1 in the first run, 1 turn, "
        "judge-2 in the second.",
        unknown,
    ]
    other.clear("evaluations", "bon")
    assert tables(run, other)["Win rates in best-of-N"].notes == []


def test_a_second_evaluation_of_one_name_keeps_its_rows(run: RunDir, other: RunDir) -> None:
    text = write_any_model(run, "later").read_text("evaluation.json")
    text = text.replace("c0ffee", "decaf").replace('"accuracy": 0.75', '"accuracy": 0.8125')
    run.write_text(text, "evaluations", "later", "evaluation.json")
    found = tables(run, other)
    same, later = "75.0% (70.0% to 80.0%) of 4", "81.2% (70.0% to 80.0%) of 4"
    assert found["Accuracy on any pairs"].rows[:2] == [
        (f"dev, {OWN} (in dev)", same, same),
        (f"dev, {OWN} (in later)", later, "—"),
    ]
    assert found["Accuracy on any pairs"].notes == [
        "dev: some evaluations are of other pairs in one run than in the other."
    ]
    assert [len(found[title].rows) for title in ("Accuracy on any pairs", "Turn-sensitivity")] == [4, 12]


def test_a_second_best_of_n_keeps_its_rows(run: RunDir, other: RunDir) -> None:
    file = ("evaluations", "short", "results.json")
    text = write_best_of_n(run, "short").read_text("results.json")
    run.write_text(text.replace('"turns": 3', '"turns": 1').replace("0.625", "0.75"), *file)
    found = tables(run, other)["Win rates in best-of-N"]
    wins = {label: cells for label, *cells in found.rows}
    label = f"{OWN} against random picks, by turn, N = 4, judged by judge"
    assert wins[f"{label} (in bon)"] == ["62.5% (50.0% to 75.0%) of 19, 1 left out"] * 2
    assert wins[f"{label} (in short)"] == ["75.0% (50.0% to 75.0%) of 19, 1 left out", "—"]
    assert len(found.rows) == 8
    assert found.notes[0] == (
        f"{OWN} against random picks, judged by judge: 3 turns, judge-1 and 1 turn, judge-1 in the first "
        "run, 3 turns, judge-1 in the second."
    )


def test_win_rates_of_other_prompts_do_not_meet(run: RunDir, other: RunDir) -> None:
    for one, digest in ((run, "p1"), (other, "p1")):
        write_prompts(one, digest)
    wins = tables(run, other)["Win rates in best-of-N"]
    assert (len(wins.rows), wins.notes) == (4, [])
    write_prompts(other, "p2")
    wins = tables(run, other)["Win rates in best-of-N"]
    assert len(wins.rows) == 8 and all("—" in row for row in wins.rows)
    assert wins.notes == [
        f"{OWN} against random picks, judged by judge: other prompts in one run than in the other."
    ]


def write_prompts(run: RunDir, digest: str) -> None:
    """Has the results say which prompts they are of."""
    file = ("evaluations", "bon", "results.json")
    document = json.loads(run.read_text(*file))
    run.write_text(json.dumps(document | {"prompts": {"digest": digest}}), *file)


def test_a_model_that_was_trained_again_is_not_called_the_runs_own(
    run: RunDir, other: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(tmp_path / "cache"))
    write_model(run)
    found = tables(run, other)
    assert [label for label, *_ in found["Accuracy on any pairs"].rows] == [
        "dev, …/small/model",
        f"dev, {STARTED_FROM}",
        f"dev, {OWN}",
    ]
    said = (
        "…/small/model holds another model now than the one that was evaluated under this name, which "
        "therefore is not called the run's model."
    )
    assert found["Accuracy on any pairs"].notes == [said]
    assert found["Win rates in best-of-N"].notes == [said]


def test_of_few_contexts_no_interval_is_shown(run: RunDir, other: RunDir) -> None:
    for file in (("evals", "pairwise.json"), ("evaluations", "dev", "evaluation.json")):
        run.write_text(run.read_text(*file).replace('"num_contexts": 12', '"num_contexts": 9'), *file)
    found = tables(run, other)
    rows = {label: cells for part in found.values() for label, *cells in part.rows}
    assert rows["MUSIC pairs, trained"] == [
        "87.5% (too few contexts) of 4",
        "87.5% (75.0% to 100.0%) of 4",
    ]
    assert rows["MUSIC pairs: trained against untrained"][0] == "better, +75.0 points"
    assert rows[f"dev, {OWN}"] == ["75.0% (too few contexts) of 4", "75.0% (70.0% to 80.0%) of 4"]
    assert rows[f"dev, {OWN}, another conversation's reply: last turn"] == [
        "+1.25, falls",
        "+1.25 (+1.15 to +1.35), falls",
    ]


def test_models_of_one_shown_name_keep_rows_of_their_own(run: RunDir, other: RunDir) -> None:
    for one, key, digest in ((run, "A:B", "bbbbbbbb2"), (other, "C:D", "dddddddd4")):
        file = ("evaluations", "dev", "evaluation.json")
        text = one.read_text(*file).replace(f"untrained:{one.display()}", f"s3://{key}@bucket/base")
        one.write_text(text.replace("bbbbbbbb2", digest), *file)
    rows = tables(run, other)["Accuracy on any pairs"].rows
    value = "25.0% (20.0% to 30.0%) of 4"
    assert rows[1:] == [("dev, s3://bucket/base", value, "—"), ("dev, s3://bucket/base", "—", value)]


def test_a_run_in_which_nothing_ran(run: RunDir, make_run: Callable[..., RunDir]) -> None:
    empty, nothing = make_run("empty"), make_run("nothing")
    found = tables(run, empty)
    assert found["Tokens"].rows[0] == ("prompt", "12,000", "—")
    assert {title: part.missing for title, part in tables(empty, nothing).items() if not part.rows} == {
        "Configuration": "The configurations are the same.",
        "Provenance": "The same commit and the same versions.",
        "How far the data came": "Nothing ran.",
        "Time": "Nothing ran.",
        "Tokens": "Neither run has recorded tokens: music-ray generate does.",
        "Accuracy on held-out pairs": "Neither run has been evaluated on its held-out pairs: music-ray "
        "evaluate CONFIG does.",
        "Accuracy on any pairs": "No evaluation of any models in either run: music-ray evaluate --model "
        "RUN/model --pairs FILE --out RUN/evaluations/NAME makes one.",
        "Turn-sensitivity": "No turn-sensitivity in either run: music-ray evaluate --model … --sensitivity "
        "measures it.",
        "Win rates in best-of-N": "No win rates in either run: music-ray best-of-n CONFIG --model RUN/model "
        "--out RUN/evaluations/best-of-n makes them.",
    }


# -- the page and the command ----------------------------------------------------------------------


def test_the_page_lies_in_the_first_run_or_where_it_is_told(
    run: RunDir, other: RunDir, tmp_path: Path
) -> None:
    place = report_of_two(run, other, [], None)
    assert place == run.display("report", "against-other.html")
    page = Page(run.read_text("report", "against-other.html"))
    assert page.open == []
    assert "small against other" in page.text and "contrast.schedule all from_turn:2" in page.text
    elsewhere = tmp_path / "new" / "page.html"
    assert report_of_two(run, other, [], str(elsewhere)) == str(elsewhere)
    assert elsewhere.read_text() == run.read_text("report", "against-other.html")


def test_planted_text_stays_text_beside_another_run(hostile_run: RunDir, run: RunDir) -> None:
    report_of_two(hostile_run, run, [], None)
    page = Page(hostile_run.read_text("report", "against-small.html"))
    tags = {tag for tag, _ in page.tags}
    assert page.open == [] and not tags & {"script", "img"}
    assert "<script>alert(1)</script>" in page.text
    policy = next(values["content"] for _, values in page.tags if "http-equiv" in values)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_words_that_do_not_go_together(run: RunDir, other: RunDir) -> None:
    with pytest.raises(ConfigError, match="is named twice: name two runs, or one for its own page"):
        report_of_two(run, run, [], None)
    with pytest.raises(ConfigError, match="--evaluation x goes with one run: name it with"):
        report_of_two(run, other, ["x"], None)
    with pytest.raises(ConfigError, match=r"--out page\.html goes with two runs"):
        name_evaluations(run, [], "page.html")


def test_the_command_names_evaluations_before_the_stage(
    run: RunDir, other: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    held: list[Any] = []

    def run_stages(config: Any, stages: list[str], *, again: bool) -> RunDir:
        held.append((config.name, stages, again, run.exists("report", "evaluations.json")))
        return run

    folder = other.display("evaluations", "bon")
    report_command("small", None, [folder], None, lambda name: run.config, run_stages)
    assert held == [("small", ["report"], True, True)]
    assert capsys.readouterr().out == f"report: {run.display('report', 'index.html')}\n"
    both = {"a": run.config, "b": other.config}
    report_command("a", "b", [], None, both.__getitem__, run_stages)
    assert capsys.readouterr().out == f"report: {run.display('report', 'against-other.html')}\n"
    assert len(held) == 1
