"""What the commands write is what the report reads: documents that evaluate and best-of-N made themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from music_ray.config.load import resolve_config
from music_ray.data_files import RawRow
from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.best_of_n.summary import outcomes_by_judge, summarise
from music_ray.evaluate.sides import Tools
from music_ray.report.any_model import read_any_model
from music_ray.report.best_of_n import read_best_of_n
from music_ray.report.given import Place
from music_ray.rundir import RunDir
from tests.evaluate.conftest import TableScorer, messages, write_jsonl
from tests.report.evaluation_folder import place
from tests.report.report_folder import make_pair


def no_hub(dataset: str, revision: str | None, split: str, key: str) -> Iterator[RawRow]:
    raise AssertionError("nothing is of the hub")


def test_an_evaluation_with_sensitivity_and_rewardbench(
    tmp_path: Path, make_run: Callable[..., RunDir]
) -> None:
    folder, scorer = place(make_run(), "written"), TableScorer()
    models = []
    for name, table in (("a", {"good": 2.0, "bad": 1.0, "last": 4.0}), ("b", {"good": None})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps(table))
        models.append(str(tmp_path / name))
    plain = [
        {
            "id": number,
            "chosen": messages(f"q{number}", f"first {number}", f"and {number}?", "last"),
            "rejected": messages(f"q{number}", "bad"),
        }
        for number in range(3)
    ]
    bench = {"id": 1, "subset": "hep-go", "prompt": "write", "chosen": "good", "rejected": "bad"}
    pairs = [
        write_jsonl(tmp_path / "plain.jsonl", *plain),
        write_jsonl(tmp_path / "bench.jsonl", bench),
    ]
    words = ["evaluate.bootstrap_samples=100"]
    tools = Tools(scorer.check_model, scorer.check_scoring, score=scorer.score, hub_rows=no_hub)
    evaluate_models(models, pairs, folder.display(), None, words, tools, sensitivity=True)

    found = read_any_model(Place("written", folder))
    assert found.models == {"A": models[0], "B": models[1]}
    assert [one.name for one in found.sets] == ["plain", "bench"]
    assert found.sets[0].scores == {"A": [(4.0, 1.0)] * 3, "B": [(0.0, 0.0)] * 3}
    assert found.sets[1].overall["B"].unscored == 1
    curves = found.sets[0].sensitivity
    assert curves is not None and found.sets[1].sensitivity is None
    assert {one.letter: one.earlier.fall.value for one in curves.curves} == {"A": 0.0, "B": 0.0}
    assert found.rewardbench is not None and not found.rewardbench.is_complete
    assert dict(found.rewardbench.lacking)["Reasoning"].endswith("hep-rust, hep-go")


def test_best_of_n_with_a_checker(make_run: Callable[..., RunDir]) -> None:
    folder = place(make_run(), "written")
    section = {"n": [2, 4], "turns": 2, "selection": ["whole"], "checker": "gsm8k"}
    config = resolve_config({"name": "any", "runs_dir": folder.config.runs_dir, "best_of_n": section})
    pair = make_pair(1)

    def pick(picker: str, n: int, is_good: bool) -> dict[str, Any]:
        conversation = pair.chosen if is_good else pair.rejected
        return {"picker": picker, "selection": "whole", "n": n, "candidates": [0], "scores": [0.0],
                "conversation": conversation, "checked": float(is_good)}  # fmt: skip

    picks = [pick(who, n, who != "d1") for who in ("d1", "d2", "oracle") for n in (2, 4)]
    random = pick("random", 1, False) | {"selection": "turn"}
    rows = [{"id": number, "picks": [random, *picks]} for number in range(3)]
    run = RunDir(config)
    result = {
        "models": [{"name": "one", "digest": "d1"}, {"name": "two", "digest": "d2"}],
        "rows": {"ok": 3, "errors": {}},
        **summarise(run, rows, {}, outcomes_by_judge(run, rows, {}, ["d1", "d2"])),
        "warnings": [],
    }
    folder.write_text(json.dumps(result), "results.json")

    found = read_best_of_n(Place("written", folder))
    (match,) = [one for one in found.matches if {one.first, one.second} == {"A", "B"}]
    assert (match.first, match.judged_by) == ("A", "checker")
    assert [(one.n, one.losses, one.num_counted, one.win_rate.value) for one in match.rates] == [
        (2, 3, 3, 0.0),
        (4, 3, 3, 0.0),
    ]
    assert [(selection, slope.value) for selection, slope in match.slopes] == [("whole", 0.0)]
    assert {one.picker for one in found.checked} == {"A", "B", "the oracle", "random picks"}
