"""The tables: what a reader finds in them."""

from pathlib import Path

import pytest

from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.show import print_evaluation
from tests.evaluate.conftest import messages, write_jsonl


@pytest.fixture
def shown(tmp_path: Path, make_model, tools, capsys):
    """shown(rows, verdicts): what is printed of two models on these rows."""
    models = [
        make_model("first", {"good": 1.0, "bad": 0.0}),
        make_model("second", {"good": None, "bad": 0.0}),
    ]

    def show(rows, *verdicts) -> str:
        pairs = write_jsonl(tmp_path / "dev.jsonl", *rows)
        judge = write_jsonl(tmp_path / "v.jsonl", *verdicts) if verdicts else None
        out = str(tmp_path / "out")
        words = ["evaluate.bootstrap_samples=100"]
        result = evaluate_models(models, [pairs], out, judge, words, tools)
        capsys.readouterr()
        print_evaluation(result)
        return capsys.readouterr().out

    return show


def pair(number, **other):
    sides = {"chosen": messages(f"q{number}", "good"), "rejected": messages(f"q{number}", "bad")}
    return {"id": number, **sides, **other}


def test_accuracies_differences_and_what_has_no_score(shown) -> None:
    text = shown([pair(number, source="xy"[number % 2]) for number in range(12)] + [{"id": 99}])
    assert "A = " in text and "B = " in text and "dev: 12 pairs of 12 contexts, with 95% intervals" in text
    line = next(line for line in text.splitlines() if line.startswith("│ all "))
    assert "1.000 [1.000, 1.000]" in line and "0.000 [0.000, 0.000]" in line
    assert "+1.000 [+1.000, +1.000]" in line and "0.0005" in line  # 2 of 2^12 flips
    assert "│ source x " in text and "│ turns" not in text  # all pairs have one turn
    assert "- ties, which count as wrong: A 0, B 0" in text
    assert "- B has no score for 12 pairs (over_length): they count as wrong" in text
    assert "- 1 rows are no pairs: missing_field" in text
    assert "- only A is right on 12 pairs, only B on 0; p goes by flips of whole contexts" in text
    assert "RewardBench" not in text and "verdicts" not in text


def test_few_contexts_have_no_interval(shown) -> None:
    text = shown([pair(number) for number in range(9)])
    line = next(line for line in text.splitlines() if line.startswith("│ all "))
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["all", "9", "1.000", "–", "0.000", "–", "+1.000", "0.0039"]  # 2 of 2^9 flips


def test_agreement_has_a_table_of_its_own(shown) -> None:
    text = shown([pair(1), pair(2)], {"id": 1, "outcome": "chosen"}, {"id": 2, "outcome": "invalid"})
    line = next(line for line in text.splitlines() if line.startswith("│ whole conversations │ A"))
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["whole conversations", "A", "1.000", "–", "+1.000", "1", "0", "1"]


def test_verdicts_that_contradict_each_other_are_said(shown) -> None:
    said = [{"id": 1, "outcome": "chosen"}, {"id": 1, "outcome": "tie"}]
    text = " ".join(shown([pair(1), pair(2)], *said).split())
    assert (
        "- 1 verdicts of …/v.jsonl say something else than an earlier one on the same pair, which counts: is "
        "it a file of several judges?"
    ) in text
    assert "say something else" not in shown([pair(1), pair(2)], said[0])


def test_a_partial_set_is_called_one_and_says_what_it_lacks(shown) -> None:
    rows = [
        {"id": number, "subset": "hep-go", "prompt": f"q{number}", "chosen": "good", "rejected": "bad"}
        for number in range(164)
    ]
    text = shown([*rows, rows[0] | {"subset": "hep-cobol"}])
    assert "Partial RewardBench v1: no average (164 pairs), %" in text
    lacks = "math-prm, hep-cpp, hep-java, hep-js, hep-python, hep-rust"
    assert f"- Reasoning has no score: it lacks {lacks}; it has hep-go" in " ".join(text.split())
    line = next(line for line in text.splitlines() if "hep-go" in line and "100.0 (164)" in line)
    assert "0.0 (164)" in line
    assert "- not subsets of RewardBench, and in no score of it: hep-cobol (1)" in text
