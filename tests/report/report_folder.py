"""A small synthetic run folder, written with the same functions that the stages use."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from music_ray import schema
from music_ray.rundir import RunDir
from music_ray.schema import Call, Contrast, Message, PreferencePair, Rollout

Spread = tuple[float, float, float]
"""Accuracy and its interval."""
HOSTILE = (
    "<script>alert(1)</script></style></script><img src=x onerror=alert(2)>"
    '" onload="alert(3)" \' onclick=\'alert(4) {{ 7 * 7 }} {% for %} &amp; ]]> [bold red]rich[/] '
    "\x1b[31mred\x1b]0;title\x07 \u202eevil\u202c https://example.com/x.png"
)
CONTEXT = [
    ("user", "I bought tomatoes. What else for a sauce?"),
    ("assistant", "Garlic, oil and basil."),
    ("user", "How long should it simmer?"),
]


def say(*turns: tuple[str, str]) -> list[Message]:
    """Messages from (role, content) tuples."""
    return [{"role": role, "content": content} for role, content in turns]


def make_pair(number: int, *, text: str = "") -> PreferencePair:
    """Three turns; the branches part at turn 2, and turn 3 is spoiled as well."""
    chosen = say(
        *CONTEXT,
        ("assistant", f"Twenty minutes over low heat. {text}"),
        ("user", "Should I cover the pot?"),
        ("assistant", f"No, leave it open. {number}"),
    )
    rejected = say(
        *CONTEXT,
        ("assistant", f"Store it in a glass jar. {text}"),
        ("user", f"But how long on the stove? {text}"),
        ("assistant", f"A jar keeps for a week. {number}"),
    )
    contrasts = [
        Contrast(1, CONTEXT[2][1], f"How should I store it? {text}", "joint", 1),
        Contrast(2, f"But how long on the stove? {text}", f"How long does a jar keep? {text}", "joint", 2),
    ]
    return PreferencePair(
        id=f"music-{number}",
        source=f"kitchen {text}",
        origin="D_MUSIC",
        conversation=number,
        num_turns=3,
        branch_turn=2,
        chosen=chosen,
        rejected=rejected,
        seed_id=number,
        contrasts=contrasts,
    )


def make_rollout(number: int, *, status: Any = "ok", reason: str = "", text: str = "") -> Rollout:
    """The rollout behind make_pair(number); an error row holds its context alone."""
    pair = make_pair(number, text=text)
    is_ok = status == "ok"
    return Rollout(
        id=number,
        source=pair.source,
        conversation=number,
        status=status,
        reason=reason,
        detail="",
        context=say(*CONTEXT),
        chosen=pair.chosen if is_ok else [],
        rejected=pair.rejected if is_ok else [],
        num_generated_turns=2 if is_ok else 0,
        first_contrast_turn=1 if is_ok else 0,
        contrasts=pair.contrasts if is_ok else [],
        calls=[Call(1, "shared", "assistant", 1, 30, 0, 12, "stop", True)],
        engine="scripted",
        model="scripted-1",
        model_revision="rev-7",
        prompt_hash="cafe",
        run_epoch=1,
        seconds=1.5,
    )


def make_estimate(
    accuracy: float, low: float, high: float, num_pairs: int = 4, num_contexts: int = 12
) -> dict[str, Any]:
    """One object of evals/pairwise.json."""
    return {
        "num_pairs": num_pairs,
        "num_contexts": num_contexts,
        "margin_length": 0.25,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "ties": 0,
        "mean_margin": 0.5,
        "mean_margin_low": -0.25,
        "mean_margin_high": 1.25,
    }


def write_evaluation(run: RunDir, *, text: str = "") -> None:
    """Two suites; on MUSIC pairs the trained model is better, on D it is not settled.

    Args:
        text: planted in the name of a source.
    """

    def model(overall: Spread) -> dict[str, Any]:
        return {
            "overall": make_estimate(*overall),
            "by_num_turns": {"10": make_estimate(*overall, 1), "3": make_estimate(*overall, 3)},
            "by_branch_turn": {"2": make_estimate(*overall)},
            "by_source": {
                f"kitchen {text}": make_estimate(*overall, 3),
                "web": make_estimate(*overall, 1, 9),
            },
        }

    def suite(
        number: int, trained: Spread, untrained: Spread, difference: Spread, p_value: float
    ) -> dict[str, Any]:
        models = {"trained": model(trained), "untrained": model(untrained)}
        overall = dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True))
        overall |= {"p_value": p_value, "num_contexts": 12}
        return {
            "num_pairs": number,
            "num_conversations": 3,
            "models": models,
            "comparisons": [{"first": "trained", "second": "untrained", "overall": overall}],
        }

    document = {
        "confidence": 0.95,
        "bootstrap_samples": 2000,
        "models": ["trained", "untrained"],
        "suites": {
            "preferences": suite(4, (0.75, 0.25, 1.0), (0.25, 0.0, 0.75), (0.5, -0.25, 1.0), 0.5),
            "music": suite(8, (0.875, 0.75, 1.0), (0.125, 0.0, 0.25), (0.75, 0.5, 1.0), 0.03125),
        },
    }
    run.write_text(json.dumps(document), "evals", "pairwise.json")
    trained = [(1.0, 0.0), (2.0, -1.0), (0.5, 0.25), (-1.0, 1.0), *[(1.5, 0.5)] * 4]
    untrained = [(0.0, 0.5), (0.0, 0.25), (0.1, 0.0), (0.0, 0.5), *[(0.0, 0.25)] * 4]
    for suite_name, number in (("music", 8), ("preferences", 4)):
        write_scores(run, f"{suite_name}-trained", trained[:number])
        write_scores(run, f"{suite_name}-untrained", untrained[:number])


def write_earlier_evaluation(run: RunDir) -> None:
    """evals/pairwise.json as it was before breakdowns, correlations and comparisons were written."""
    document = json.loads(run.read_text("evals", "pairwise.json"))
    for suite in document["suites"].values():
        del suite["comparisons"]
        for model in suite["models"].values():
            del model["by_source"], model["by_branch_turn"]
            for one in (model["overall"], *model["by_num_turns"].values()):
                del one["num_contexts"], one["margin_length"]
    run.write_text(json.dumps(document), "evals", "pairwise.json")


def write_scores(run: RunDir, name: str, rows: list[tuple[float, float]]) -> None:
    """scores/NAME.parquet with (chosen, rejected) scores of music-1, music-2, …"""
    table = pa.table(
        {
            "id": [f"music-{number}" for number in range(1, len(rows) + 1)],
            "num_turns": pa.array([3] * len(rows), pa.int32()),
            "branch_turn": pa.array([2] * len(rows), pa.int32()),
            "chosen_score": pa.array([row[0] for row in rows], pa.float64()),
            "rejected_score": pa.array([row[1] for row in rows], pa.float64()),
        }
    )
    run.write_table(table, "scores", f"{name}.parquet")


def write_training(run: RunDir) -> None:
    """Four steps, of which step 2 is there twice, and half a line at the end."""
    losses = [(1, 0.8), (2, 9.0), (2, 0.6), (3, 0.5), (4, 0.25)]
    lines = [
        {
            "step": step,
            "loss": loss,
            "accuracy": 0.5 + step / 10,
            "margin": step / 4,
            "chosen_reward": step / 8,
            "rejected_reward": -step / 8,
            "learning_rate": 1e-6,
            "gradient_norm": 2.0,
            "pairs": 8,
            "tokens": 1000,
            "seconds": 2.0,
        }
        for step, loss in losses
    ]
    run.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 5, "lo', "logs", "train.jsonl")


def write_run(run: RunDir, *, text: str = "") -> None:
    """A run that went all the way, with `text` planted wherever generated or foreign text can be."""
    run.open()
    pairs = [make_pair(number, text=text) for number in (1, 2, 3)]
    run.write_table(schema.to_table(pairs, schema.PAIR_SCHEMA), "pairs", "train-00000.parquet")
    rollouts = [make_rollout(number, text=text) for number in (1, 2, 3, 4, 5)]
    rollouts.append(make_rollout(6, status="error", reason="contrast_unparsed", text=text))
    run.write_table(schema.to_table(rollouts, schema.ROLLOUT_SCHEMA), "rollouts", "shards", "a.parquet")
    gates = [
        {"id": 4, "reason": "looping", "detail": f"a line three times {text}"},
        {"id": 5, "reason": f"cut_off{text}", "detail": ""},
        {"id": 6, "reason": "contrast_unparsed", "detail": text},
    ]
    run.write_text("".join(json.dumps(one) + "\n" for one in gates), "pairs", "gates.jsonl")
    aside = {"source": f"web {text}", "row": 7, "reason": f"empty_reply{text}", "detail": text, "text": text}
    run.write_text(json.dumps(aside) + "\n", "seeds", "set_aside.jsonl")
    write_training(run)
    write_evaluation(run, text=text)
    _finish_stages(run, text)


def _finish_stages(run: RunDir, text: str) -> None:
    facts: dict[str, dict[str, Any]] = {
        "seeds": {"counts": {"rows_read": 7, "pairs": 6, "seeds": 6, "set_aside": {f"empty_reply{text}": 1}}},
        "generate": {
            "counts": {"seeds": 6, "ok": 5, "errors": {"contrast_unparsed": 1}},
            "tokens": {"prompt": 12000, "cached": 9000, "completion": 1500},
        },
        "pairs": {"counts": {"rollouts": 6, "accepted": 3, "refused": {"looping": 1, f"cut_off{text}": 1}}},
        "mix": {"counts": {"preferences": 40, "music": 3, "held_out_preferences": 4, "held_out_music": 4}},
        "train": {"counts": {"pairs": 43, "dropped": {}, "steps": 4, "pairs_seen": 32}},
        "evaluate": {"counts": {}, "notes": [f"on the CPU {text}"]},
    }
    for seconds, (stage, values) in enumerate(facts.items(), start=1):
        run.start_stage(stage)
        run.finish_stage(stage, f"digest-{stage}", 30.0 * seconds, **values)
