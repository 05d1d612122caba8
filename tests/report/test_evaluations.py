"""Evaluations beside the run's own stage: found, named, read, and shown with exact numbers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from music_ray.errors import InputError
from music_ray.report.any_model import read_any_model
from music_ray.report.best_of_n import read_best_of_n
from music_ray.report.build import run_report
from music_ray.report.collect import collect
from music_ray.report.given import Place, places, remember
from music_ray.report.mistakes import worst
from music_ray.rundir import RunDir
from tests.report.evaluation_folder import MARGINS, write_any_model, write_best_of_n, write_scores
from tests.report.test_report_build import build, read

# -- found and named -------------------------------------------------------------------------------


def test_evaluations_below_the_run_are_found(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    write_best_of_n(run, "zz")
    write_any_model(run, "dev")
    run.write_text("{}", "evaluations", "neither", "notes.json")
    run.write_text("{}", "evaluations", ".hidden", "results.json")
    assert [(one.name, one.kind) for one in places(run)] == [
        (run.display("evaluations", "dev"), "evaluation.json"),
        (run.display("evaluations", "zz"), "results.json"),
    ]


def test_named_evaluations_are_remembered_until_others_are_named(
    make_run: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, elsewhere = make_run(), make_run("elsewhere")
    write_any_model(run, "dev")
    write_any_model(elsewhere, "other")
    monkeypatch.chdir(tmp_path)
    remember(run, ["runs/elsewhere/evaluations/other/", run.display("evaluations", "dev")])
    monkeypatch.chdir("/")
    assert [one.name for one in places(run)] == [  # that of the run's own folder once
        run.display("evaluations", "dev"),
        "runs/elsewhere/evaluations/other/",
    ]
    remember(run, [run.display("evaluations", "dev")])
    assert [one.name for one in places(run)] == [run.display("evaluations", "dev")]


def test_what_is_no_evaluation_is_refused(make_run: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make_run()
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match=r"plain is no evaluation: it has neither evaluation\.json nor"):
        remember(run, [str(tmp_path / "plain")])
    assert not run.exists("report", "evaluations.json")


def test_a_folder_that_is_gone_and_a_damaged_one_are_said(run: RunDir) -> None:
    folder = write_any_model(run, "gone")
    moved = Path(folder.root).rename(Path(run.root).parent / "moved")
    remember(run, [str(moved)])
    shutil.rmtree(moved)
    write_best_of_n(run, "odd").write_text('{"models": 7}', "results.json")
    write_any_model(run, "text").write_text("[", "evaluation.json")
    damage = collect(run).damage
    assert [sentence.partition(" could not be read: ")[2][:34] for sentence in damage] == [
        "it is damaged (TypeError: 'int' ob",
        "evaluation.json is missing or no J",
        "the folder is gone: name another w",
    ]
    run.write_text('[{"name": 1}]', "report", "evaluations.json")
    assert any("name the evaluations again, music-ray report" in one for one in collect(run).damage)


# -- read ------------------------------------------------------------------------------------------


def test_any_models(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    found = read_any_model(Place("dev", write_any_model(run)))
    assert found.models == {"A": run.display("model"), "B": f"untrained:{run.display()}"}
    (pairs,) = found.sets
    assert pairs.overall["A"].accuracy.value == 0.75 and pairs.overall["B"].ties == 1
    assert [turns for turns, _ in pairs.by_num_turns] == ["3", "10"]
    assert [(one.first, one.second, one.difference.value, one.p_value) for one in pairs.differences] == [
        ("A", "B", 0.5, 0.03125)
    ]
    margins = {mark: [one - other for one, other in scores] for mark, scores in pairs.scores.items()}
    assert margins["A"] == pytest.approx(MARGINS["A"]) and margins["B"] == pytest.approx(MARGINS["B"])
    assert pairs.sensitivity is not None
    assert [(one.letter, one.kind, one.verdict) for one in pairs.sensitivity.curves] == [
        ("A", "foreign", "falls with a spoiled last reply, and with a spoiled earlier one"),
        ("A", "contrast", "falls with a spoiled last reply, and with a spoiled earlier one"),
        ("B", "foreign", "falls with a spoiled last reply; no fall is seen with a spoiled earlier one"),
    ]
    rows = pairs.sensitivity.curves[2].rows
    assert [(label, point.fall_std.value) for label, point in rows] == [
        ("last", 1.5), ("all earlier", 0.0), ("1 before the last", 0.0), ("of turn 1", 0.0),
        ("of turn 2", 1.5),
    ]  # fmt: skip
    assert found.rewardbench is not None
    assert [(name, paper) for name, _, paper in found.rewardbench.rows] == [
        ("Chat", [0.969, 0.964]),
        ("Chat Hard", [0.73, 0.724]),
        ("Safety", [0.909, 0.908]),
        ("Reasoning", [0.831, 0.87]),
        ("average of the sections", [0.86, 0.866]),
        ("average with prior sets", [None, None]),
    ]


def test_scores_of_other_pairs_or_of_a_former_model_are_left_out(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    folder = write_any_model(run)
    model = run.display("model")
    write_scores(folder, "scores-model-00000000.parquet", model, [9.0, 9.0, 9.0, 9.0])  # before its training
    write_scores(folder, "scores-model-bbbbbbbb.parquet", f"untrained:{run.display()}", [1.0])
    (pairs,) = read_any_model(Place("dev", folder)).sets
    assert list(pairs.scores) == ["A"]
    assert pairs.scores["A"][3][0] == pytest.approx(1 + MARGINS["A"][3])


def test_a_missing_score_is_no_number(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    folder = write_any_model(run)
    write_scores(folder, "scores-model-aaaaaaaa.parquet", run.display("model"), [1.0, None, -1.0, 0.5])
    (pairs,) = read_any_model(Place("dev", folder)).sets
    assert math.isnan(pairs.scores["A"][1][0])


def test_best_of_n(make_run: Callable[..., RunDir]) -> None:
    found = read_best_of_n(Place("bon", write_best_of_n(make_run())))
    (match,) = found.matches
    assert (match.first, match.second, match.judged_by) == ("A", "random picks", "judge")
    assert match.selections == ["turn", "whole"]
    assert [(one.selection, one.n, one.win_rate.value) for one in match.rates[:3]] == [
        ("turn", 2, 0.5), ("turn", 4, 0.625), ("whole", 2, 0.375),
    ]  # fmt: skip
    assert not match.rates[3].win_rate.is_known
    assert {one.num_counted for one in match.rates} == {19}, "results without it: 20 less the invalid one"
    assert [(selection, slope.value) for selection, slope in match.slopes] == [("turn", 0.125)]
    assert found.notes == [
        "2 prompts have no conversations: timeout",
        "A, by turn from 4: 3 of 80 candidates have no score and could not be picked",
    ]
    assert [(one.picker, one.mean.value) for one in found.checked] == [("random picks", 0.25)]


@pytest.mark.parametrize(
    ("margins", "places_"),
    [
        ([], []),
        ([1.0, 0.0, math.nan], []),
        ([-1.0, -3.0, 2.0, -3.0, -2.0], [1, 3, 4]),
    ],
)
def test_the_worst_are_the_most_negative(margins: list[float], places_: list[int]) -> None:
    assert worst(margins, 3) == places_


def test_mistakes_of_the_run_and_of_every_model(run: RunDir) -> None:
    shown = [
        (one.of, one.model, one.num_wrong, one.num_pairs, [reading.id for reading in one.readings])
        for one in collect(run).mistakes
    ]
    assert shown == [
        ("Preference pairs of D", "trained", 1, 4, ["music-4"]),
        ("MUSIC pairs", "trained", 1, 8, ["music-4"]),
        ("dev", "A", 1, 4, ["music-4"]),
        ("dev", "B", 2, 4, ["music-4", "music-2"]),
    ]


def test_mistakes_whose_pairs_are_gone_are_counted(run: RunDir) -> None:
    run.clear("mix", "held_out")
    run.fs.delete_file(run.path("evaluations", "dev", "dev", "pairs-c0ffee.parquet"))
    assert collect(run).mistakes == []
    assert "No scored pairs to read yet" in build(run).text


# -- shown -----------------------------------------------------------------------------------------


def test_the_page_shows_every_model_and_its_numbers(finished: RunDir) -> None:
    text = read(finished).text
    assert "dev all A 4 75.0% 70.0% to 80.0% 0 1 +0.25" in text
    assert "dev: A − B is +50.0 points (+25.0 to +75.0), p = 0.0312 by exchanges of whole contexts." in text
    assert "dev: 2 rows are no pairs (missing field)." in text
    assert "Partial RewardBench v1: no average 358 pairs." in text
    assert "Chat 95.0% 90.0% to 100.0% 50.0% 45.0% to 55.0% 96.9% 96.4%" in text
    assert "Reasoning has no score: it lacks math-prm, hep-go." in text
    assert "40 conversations of 12 contexts" in text
    assert "B, spoiled by another conversation's reply: falls with a spoiled last reply; no fall" in text
    assert "last 40 +2.500 +1.25 +1.15 to +1.35 75.0% falls" in text
    assert "all earlier 40 +0.000 +0.00 −0.10 to +0.10 75.0% no fall seen" in text


def test_the_page_shows_win_rates_by_n(finished: RunDir) -> None:
    text = read(finished).text
    assert "A against random picks judge turn 2 9 : 5 3 2 1 0 19 50.0% 37.5% to 62.5%" in text
    assert "whole 4 9 : 5 3 2 1 0 19 — — —" in text
    assert (
        "A against random picks, by turn, judged by judge: +12.5 points (+0.0 to +25.0) with each doubling"
        in text
    )
    assert (
        "Judge judge-1, 17 questions: names what it is shown first in 62.5% of its choices; both orders "
        "agree in 75.0%; asked again it says the same of 87.5% of 8." in text
    )
    assert (
        "The two judges say the same of 50.0% of 16 questions, and of 87.5% where both name a winner." in text
    )
    assert "the judge also speaks" in text


def test_a_judge_that_was_asked_once_says_why(run: RunDir) -> None:
    place = ("evaluations", "bon", "results.json")
    document = json.loads(run.read_text(*place))
    judge = document["judges"]["judge"]
    judge |= {"num_repeated": 0, "agreement_on_repetition": None, "why_not_repeated": "it is greedy"}
    document["judges_agree"] = None
    run.write_text(json.dumps(document), *place)
    text = build(run).text
    assert "agree in 75.0%; whether it would say the same again is not known: it is greedy." in text
    assert "The two judges" not in text
    for name in ("num_repeated", "agreement_on_repetition", "why_not_repeated"):
        del judge[name]
    del document["judges_agree"]  # as results were before these were counted
    run.write_text(json.dumps(document), *place)
    assert "both orders agree in 75.0%." in build(run).text


def test_neither_keys_nor_folders_of_the_machine_are_on_the_page(run: RunDir) -> None:
    text = run.read_text("evaluations", "dev", "evaluation.json")
    text = text.replace(f"untrained:{run.display()}", "s3://KEY:SECRET@bucket/b/model")
    run.write_text(text, "evaluations", "dev", "evaluation.json")
    run.write_text('{"data": "s3://KEY:SECRET@bucket/pairs.jsonl?region=x"}', "config.yaml")
    named = [{"name": "s3://KEY:SECRET@bucket/x", "location": run.display("evaluations", "gone")}]
    run.write_text(json.dumps(named), "report", "evaluations.json")
    page = build(run).text
    assert "A …/small/model B s3://bucket/b/model" in page
    assert "s3://bucket/x could not be read: the folder is gone" in page
    assert '{"data": "s3://bucket/pairs.jsonl' in page
    assert "SECRET" not in page and "KEY" not in page


def test_a_folder_that_was_named_with_its_key_is_refused(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    with pytest.raises(InputError, match="--evaluation s3://bucket/x was named with its key") as error:
        remember(run, ["s3://KEY:hunter2@bucket/x?region=y"])
    assert "hunter2" not in str(error.value) and not run.exists("report", "evaluations.json")


def test_the_page_shows_calibration_with_counts(finished: RunDir) -> None:
    text = read(finished).text
    # A: 77% sure twice and right, 92% sure twice and right once.
    assert "A: ECE 0.325 on 4 pairs; B: ECE" in text
    assert "A 75.0% to 80.0% 2 77.0% 100.0%" in text
    assert "90.0% to 95.0% 2 92.0% 50.0%" in text
    assert "all, without 1 ties 3" in text


def test_the_page_shows_mistakes_from_where_the_sides_part(finished: RunDir) -> None:
    page = read(finished)
    assert "dev, B: the 2 worst of 2 mistakes on 4 pairs" in page.text
    assert "MUSIC pairs, trained: the 1 worst of 1 mistakes on 8 pairs" in page.text
    articles = [values for tag, values in page.tags if tag == "article"]
    assert len([values for values in articles if "data-reason" not in values]) == 5
    assert "trained −1.00 against +1.00 wrong order Turn 1, shared" in page.text


def test_a_section_without_input_says_which_command_makes_it(make_run: Callable[..., RunDir]) -> None:
    run = make_run("new")
    text = build(run).text
    folder = run.display()
    for sentence in (
        f"music-ray evaluate --model {folder}/model --model untrained:{folder} --pairs FILE --sensitivity",
        f"music-ray report {folder} --evaluation FOLDER",
        f"music-ray best-of-n CONFIG --model {folder}/model --out {folder}/evaluations/best-of-n makes it",
        "No scores of pairs yet: music-ray evaluate writes them.",
        "No scored pairs to read yet: music-ray evaluate scores those that music-ray mix held out.",
        "music-ray train writes it.",
        f"No audit yet: music-ray audit {folder} looks",
    ):
        assert sentence in text


def test_an_evaluation_without_its_options_says_what_adds_them(run: RunDir) -> None:
    document = json.loads(run.read_text("evaluations", "dev", "evaluation.json"))
    document["pair_sets"][0].pop("sensitivity")
    document["rewardbench"] = dict.fromkeys(document["rewardbench"])
    run.write_text(json.dumps(document), "evaluations", "dev", "evaluation.json")
    text = build(run).text
    assert "No turn-sensitivity here: the same command with --sensitivity measures it." in text
    assert "No RewardBench here: --pairs allenai/reward-bench adds it." in text


def test_what_the_manifest_counts(run: RunDir) -> None:
    counts = run_report(run)["counts"]
    assert (counts["mistakes_shown"], counts["evaluations_shown"]) == (5, 2)
