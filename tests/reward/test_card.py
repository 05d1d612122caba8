"""The model card: what it says of data, recipe and training, and that data can't break out of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from music_ray.config import RunConfig
from music_ray.reward.card import model_card
from music_ray.reward.data import PairTokens
from music_ray.reward.tokenise import TOKENS_SCHEMA
from music_ray.rundir import RunDir
from music_ray.score_section import BEGIN, END, with_scores

OVERALL = {
    "num_pairs": 1200, "accuracy": 0.75, "accuracy_low": 0.7, "accuracy_high": 0.8, "ties": 0,
    "mean_margin": 1.5, "mean_margin_low": 1.25, "mean_margin_high": 1.75,
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "confidence": 0.95,
    "suites": {"music": {"models": {"trained": {"overall": OVERALL}}}},
}


def pairs_of(*origins_and_sources: tuple[str, str]) -> PairTokens:
    rows = [
        {"id": str(number), "source": source, "origin": origin, "chosen": [3], "rejected": [4]}
        for number, (origin, source) in enumerate(origins_and_sources)
    ]
    return PairTokens(pa.Table.from_pylist(rows, schema=TOKENS_SCHEMA))


PAIRS = pairs_of(("D", "books"), ("D", "books"), ("D", "web"), ("D_MUSIC", "books"))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make(tmp_path)


def make(folder: Path, **train: Any) -> RunDir:
    sources = [{"hub": "org/books", "licence": "cc-by-4.0"}, {"path": "web.jsonl"}]
    config = {
        "name": "small",
        "runs_dir": str(folder),
        "data": {"sources": sources},
        "train": {"base_model": "/home/somebody/models/base", "steps": 40, **train},
    }
    run = RunDir(RunConfig.model_validate(config))
    licences = [
        {"source": "books", "read_from": 0, "licence": "", "pairs": 2},
        {"source": "web", "read_from": 1, "licence": "mit", "pairs": 1},
        {"source": "web", "read_from": 1, "licence": "", "pairs": 1},
    ]
    run.write_text(json.dumps({"stages": {"seeds": {"licences": licences}}}), "manifest.json")
    return run


def write_log(run: RunDir, name: str, lines: list[dict[str, Any]]) -> None:
    run.write_text("".join(json.dumps(line) + "\n" for line in lines), "logs", name)


def rows(card: str, head: str) -> list[list[str]]:
    """The rows of the table below a section's head."""
    section = card.partition(f"\n{head}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_data_by_origin_source_and_licence(run: RunDir) -> None:
    card = model_card(run, PAIRS, soft_capped=False)
    assert rows(card, "## Data") == [
        ["`D`", "`books`", "2", "`cc-by-4.0`"],
        ["`D`", "`web`", "1", "`mit`, unknown"],
        ["`D_MUSIC`", "`books`", "1", "`cc-by-4.0`"],
    ]
    assert "Trained on 4 pairs: 3 of `D`, 1 of `D_MUSIC`." in card


def test_the_hub_reads_its_head_and_no_place_is_told(run: RunDir) -> None:
    card = model_card(run, PAIRS, soft_capped=False)
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {
        "base_model": "…/base",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "music_ray"],
        "datasets": ["org/books"],
    }
    assert "somebody" not in card


def test_the_recipe_names_what_departs_from_the_plain_loss(tmp_path: Path) -> None:
    loss = {"margin": True, "label_smoothing": 0.1, "centring": 0.01}
    weights = {"D": 0.7, "D_MUSIC": 0.3}
    run = make(tmp_path, loss=loss, mix_weights=weights, lora={"rank": 8}, export="best", num_layers=2)
    found = dict(rows(model_card(run, PAIRS, soft_capped=False), "## Recipe"))
    assert found["base model"] == "`…/base` (first 2 layers)"
    assert found["loss"] == "Bradley-Terry, with the pairs' margins, label smoothing 0.1, centring 0.01"
    assert found["weights of the mix"] == "`D` 0.7, `D_MUSIC` 0.3"
    assert found["adapters"] == "LoRA, rank 8, merged"
    assert found["exported"] == "the checkpoint that is best by mean on held-out pairs"
    plain = dict(rows(model_card(make(tmp_path), PAIRS, soft_capped=False), "## Recipe"))
    assert plain["loss"] == "Bradley-Terry" and "weights of the mix" not in plain
    assert plain["steps × pairs a step"] == "40 × 64"


def test_soft_capped_models_are_loaded_with_eager_attention(run: RunDir) -> None:
    plain, capped = (model_card(run, PAIRS, soft_capped=choice) for choice in (False, True))
    assert "attn_implementation" not in plain
    assert 'from_pretrained(FOLDER, attn_implementation="eager")' in capped


def test_the_course_is_told_by_the_first_and_the_last_steps(run: RunDir) -> None:
    lines = [
        {"step": step, "loss": 1.0 / step, "accuracy": 0.5, "margin": float(step)} for step in range(1, 51)
    ]
    write_log(run, "train.jsonl", lines)
    (first, last) = rows(model_card(run, PAIRS, soft_capped=False), "## The course of the training")
    assert first[0] == "1 to 20" and last[0] == "31 to 50"
    assert (first[3], last[3]) == ("10.5000", "40.5000")
    write_log(run, "train.jsonl", lines[:1])
    card = model_card(run, PAIRS, soft_capped=False)
    assert rows(card, "## The course of the training") == [["1 to 1", "1.0000", "0.5000", "1.0000"]]


def test_without_logs_nothing_is_said_of_them(run: RunDir) -> None:
    card = model_card(run, PAIRS, soft_capped=False)
    assert "## The course" not in card and "## Evaluations" not in card


def test_evaluations_while_training_are_the_last_ones_and_the_best(run: RunDir) -> None:
    suite = {"accuracy": 0.625, "loss": 0.5, "margin": 1.0, "num_pairs": 32}
    lines = [
        {"step": step, "suites": {"music": suite}, "best": step == 2} for step in range(1, 15)
    ]  # fmt: skip
    write_log(run, "evaluation.jsonl", lines)
    found = rows(model_card(run, PAIRS, soft_capped=False), "## Evaluations while training")
    assert [row[0] for row in found] == ["2 (best)", *(str(step) for step in range(5, 15))]
    assert found[-1][1:] == ["`music`", "32", "0.625", "0.5000", "+1.000"]


def test_many_sources_are_cut_to_the_largest(run: RunDir) -> None:
    many = [("D", f"source-{number}") for number in range(60)]
    card = model_card(run, pairs_of(*many, *many[:50]), soft_capped=False)
    assert len(rows(card, "## Data")) == 50
    assert "10 smaller sources are not listed." in card


# -- the scores ------------------------------------------------------------------------------------


def test_scores_take_the_place_of_the_empty_section_and_of_older_ones(run: RunDir) -> None:
    card = model_card(run, PAIRS, soft_capped=False)
    assert "Not evaluated yet" in card
    scored = with_scores(card, RESULTS)
    assert rows(scored, "## Scores") == [
        ["held-out MUSIC pairs", "trained", "1,200", "0.750 [0.700, 0.800]", "+1.500 [+1.250, +1.750]"]
    ]
    assert "95% bootstrap intervals" in scored and "Not evaluated yet" not in scored
    assert with_scores(scored, RESULTS) == scored
    before, after = (text.partition(BEGIN)[0] + text.partition(END)[2] for text in (card, scored))
    assert before == after


def test_a_card_without_the_section_gets_it_at_its_end() -> None:
    assert with_scores("# Mine\n", RESULTS).startswith(f"# Mine\n\n{BEGIN}\n\n## Scores\n")


@pytest.mark.parametrize(
    "name",
    [
        "a|b", "`a`", "line\nbreak | x", f"x\n{BEGIN}\nx", f"{END}", "<script>", "\n## Scores\n", "[a](http://b)",
    ],
)  # fmt: skip
def test_names_of_others_can_t_break_out(run: RunDir, name: str) -> None:
    plain = model_card(run, pairs_of(("D", "x")), soft_capped=False)
    card = model_card(run, pairs_of(("D", name)), soft_capped=False)
    assert len(card.splitlines()) == len(plain.splitlines())
    [row] = rows(card, "## Data")
    assert len(row) == 4 and row[1].startswith("`") and row[1].endswith("`") and row[1].count("`") == 2
    scored = with_scores(card, RESULTS)
    assert scored.count("## Scores") == card.count("## Scores")
    assert with_scores(scored, RESULTS) == scored
