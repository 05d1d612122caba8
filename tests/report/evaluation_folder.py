"""Evaluations beside a run's own stage, as `evaluate --model` and `best-of-n` leave them, made by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa

from music_ray import schema
from music_ray.config import RunConfig
from music_ray.rundir import RunDir
from tests.report.report_folder import make_pair

LESS, MORE = math.log(0.77 / 0.23), math.log(0.92 / 0.08)
"""Margins of which a model is 77% and 92% sure."""
MARGINS: dict[str, list[float | None]] = {
    "A": [MORE, LESS, LESS, -MORE],
    "B": [LESS, -LESS, 0.0, -MORE],
}


def place(run: RunDir, name: str) -> RunDir:
    """The folder RUN/evaluations/NAME."""
    return RunDir(RunConfig(name=name, runs_dir=run.display("evaluations")))


def write_held_out(run: RunDir, *, text: str = "") -> None:
    """The pairs behind the scores of write_evaluation."""
    for suite, number in (("music", 8), ("preferences", 4)):
        pairs = [make_pair(one, text=text) for one in range(1, number + 1)]
        table = schema.to_table(pairs, schema.PAIR_SCHEMA)
        run.write_table(table, "mix", "held_out", f"{suite}.parquet")


def accuracy(value: float, **more: Any) -> dict[str, Any]:
    """One accuracy of evaluation.json, 12 contexts, half a tenth to either side."""
    return {
        "num_pairs": 4, "num_contexts": 12, "accuracy": value, "accuracy_low": value - 0.05,
        "accuracy_high": value + 0.05, "ties": 0, "unscored": 0, "margin_length": 0.25,
    } | more  # fmt: skip


def cell(fall: float, verdict: str = "falls", **more: Any) -> dict[str, Any]:
    """One point of a sensitivity curve, in standard deviations of 2."""
    return {
        "num_spoiled": 40, "num_contexts": 12, "unscored": 0, "fall": 2 * fall, "fall_low": 2 * fall - 0.2,
        "fall_high": 2 * fall + 0.2, "fall_std": fall, "fall_std_low": fall - 0.1,
        "fall_std_high": fall + 0.1, "fell": 0.75, "same": 0.0, "rose": 0.25, "longer": 0.0,
        "verdict": verdict,
    } | more  # fmt: skip


def curve(last: float, earlier: float, verdict: str) -> dict[str, Any]:
    """Two turns."""
    first = cell(earlier, "falls" if earlier else "no_fall_seen")
    return {
        "verdict": verdict,
        "last": cell(last),
        "earlier": first,
        "by_turn": {"1": first, "2": cell(last)},
        "by_distance": {"0": cell(last), "1": first},
    }


def sensitivity(first: str, second: str) -> dict[str, Any]:
    """The first model sees both turns, the second the last one."""
    model = {"num_good": 40, "good_mean": 0.0, "good_std": 2.0, "unscored_reasons": {}}
    return {
        "num_conversations": 40, "num_contexts": 12, "num_spoiled": {"foreign": 80, "contrast": 40},
        "left_out": {"one_turn": 3}, "no_foreign_reply": 0, "sample": 32, "same_within": 0.001,
        "models": {
            first: model | {
                "foreign": curve(1.25, 0.5, "earlier_turns_too"),
                "contrast": curve(0.75, 0.25, "earlier_turns_too"),
            },
            second: model | {"foreign": curve(1.5, 0.0, "last_turn_only"), "contrast": None},
        },
    }  # fmt: skip


def section(score: float | None, *missing: str) -> dict[str, Any]:
    """A section of RewardBench."""
    bounds = (None, None) if score is None else (score - 0.05, score + 0.05)
    return {"score": score, "score_low": bounds[0], "score_high": bounds[1], "has": [],
            "missing": list(missing), "incomplete": {}}  # fmt: skip


def rewardbench(chat: float) -> dict[str, Any]:
    """Chat alone is complete."""
    return {
        "sections": {
            "Chat": section(chat),
            "Chat Hard": section(None, "mt-bench-hard"),
            "Safety": section(None, "donotanswer"),
            "Reasoning": section(None, "math-prm", "hep-go"),
        },
        "average": None, "average_with_prior_sets": None, "is_complete": False, "num_pairs": 358,
    }  # fmt: skip


def write_any_model(run: RunDir, name: str = "dev", *, text: str = "") -> RunDir:
    """RUN/evaluations/NAME: the run's model and what it started from on four pairs."""
    folder = place(run, name)
    models = [f"{run.display('model')}{text}", f"untrained:{run.display()}{text}"]
    overall = [accuracy(0.75, unscored=1), accuracy(0.25, ties=1)]
    document = {
        "confidence": 0.95,
        "models": [
            {"name": one, "folder": "", "digest": digest}
            for one, digest in zip(models, ("aaaaaaaa1", "bbbbbbbb2"), strict=True)
        ],
        "pair_sets": [
            {
                "name": "dev", "content": "c0ffee", "num_pairs": 4, "num_contexts": 12,
                "set_aside": {f"missing_field{text}": 2},
                "models": {
                    one: {"overall": found, "by_num_turns": {"10": found, "3": found}}
                    for one, found in zip(models, overall, strict=True)
                },
                "comparisons": [
                    {
                        "first": models[0], "second": models[1],
                        "overall": {"difference": 0.5, "difference_low": 0.25, "difference_high": 0.75,
                                    "p_value": 0.03125},
                    }
                ],
                "sensitivity": sensitivity(*models),
            }
        ],
        "rewardbench": {models[0]: rewardbench(0.95), models[1]: rewardbench(0.5)},
    }  # fmt: skip
    folder.write_text(json.dumps(document), "evaluation.json")
    pairs = [make_pair(number, text=text) for number in range(1, 5)]
    columns = {field: [getattr(one, field) for one in pairs] for field in ("id", "chosen", "rejected")}
    sides = pa.schema([("id", pa.string()), ("chosen", schema.MESSAGES), ("rejected", schema.MESSAGES)])
    folder.write_table(pa.table(columns, schema=sides), "dev", "pairs-c0ffee.parquet")
    for model, margins, digest in zip(models, MARGINS.values(), ("aaaaaaaa", "bbbbbbbb"), strict=True):
        write_scores(folder, f"scores-model-{digest}.parquet", model, margins)
    return folder


def write_scores(folder: RunDir, file: str, model: str, margins: list[float | None]) -> None:
    """dev/FILE with these margins over rejected sides of score 1."""
    chosen = pa.array([None if one is None else one + 1 for one in margins], pa.float64())
    rejected = pa.array([1.0] * len(margins), pa.float64())
    table = pa.table({"chosen_score": chosen, "rejected_score": rejected})
    folder.write_table(table.replace_schema_metadata({"music_ray.model_name": model}), "dev", file)


def rate(selection: str, n: int, value: float | None) -> dict[str, Any]:
    """One comparison of two models by the judge."""
    low, high = (None, None) if value is None else (value - 0.125, value + 0.125)
    spans = {
        f"{name}{end}": one
        for name in ("win_rate", "win_rate_differing", "length_controlled")
        for end, one in (("", value), ("_low", low), ("_high", high))
    }
    return {
        "first": "aaaaaaaa1", "second": "random", "selection": selection, "n": n, "judged_by": "judge",
        "num_prompts": 20, "first_wins": 9, "second_wins": 5, "same": 3, "tie": 2, "invalid": 1,
        "unanswered": 0, **spans,
    }  # fmt: skip


def write_best_of_n(run: RunDir, name: str = "bon", *, text: str = "") -> RunDir:
    """RUN/evaluations/NAME: the run's model against random picks."""
    folder = place(run, name)
    document = {
        "models": [{"name": f"{run.display('model')}{text}", "digest": "aaaaaaaa1"}],
        "rows": {"ok": 20, "errors": {f"timeout{text}": 2}},
        "settings": {"turns": 3, "n": [2, 4], "confidence": 0.95},
        "comparisons": [
            rate("turn", 2, 0.5), rate("turn", 4, 0.625), rate("whole", 2, 0.375), rate("whole", 4, None),
        ],
        "trends": [
            {"judged_by": "judge", "first": "aaaaaaaa1", "second": "random", "selection": "turn",
             "num_prompts": 19, "slope": 0.125, "slope_low": 0.0, "slope_high": 0.25},
        ],
        "judges": {
            "judge": {"kind": "endpoint", "model": f"judge-1{text}", "num_questions": 17,
                      "first_position_wins": 0.625, "agreement_in_both_orders": 0.75,
                      "num_repeated": 8, "agreement_on_repetition": 0.875, "why_not_repeated": ""},
        },
        "judges_agree": {"num_questions": 16, "share": 0.5, "share_of_winners": 0.875},
        "checked": [{"picker": "random", "selection": "turn", "n": 1, "num_prompts": 20, "mean": 0.25,
                     "mean_low": 0.125, "mean_high": 0.375}],
        "unscored": [{"picker": "aaaaaaaa1", "selection": "turn", "n": 4, "num_candidates": 80,
                      "num_unscored": 3}],
        "warnings": [f"the judge also speaks {text}"],
    }  # fmt: skip
    folder.write_text(json.dumps(document), "results.json")
    return folder
