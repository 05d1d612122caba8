"""The plan of mix and training: passes, tokens, what is too long, hours from a rate or operations."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from music_ray.planning.make import make_plan
from music_ray.reward.order import PairOrder
from tests.planning.conftest import NUM_PAIRS, MakeRun, add_seeds

D_TOKENS = 2 * 15 + 35 + 25
"""Of both sides of a pair of D."""
MUSIC_TOKENS = 2 * (15 + 2 * (60 + 5) + (24 + 5))
"""Two replies and a user message at costs.reply_fill 0.6, after the seed."""
LLAMA = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 128, "num_hidden_layers": 3, "dtype": "bfloat16", "vocab_size": 100,
}  # fmt: skip
LAYER = 64 * 16 * (4 + 4 + 2 + 2) + 3 * 64 * 128


def planned(make_run: MakeRun, **sections):
    run = make_run(**sections)
    if not run.exists("manifest.json"):
        add_seeds(run)
    plan, _ = make_plan(run)
    return plan


def test_passes_and_tokens_by_hand(make_run: MakeRun) -> None:
    plan = planned(
        make_run,
        mix={"held_out_fraction": 0.25},
        train={"steps": 9, "pairs_per_step": 20},
        costs={"acceptance": 0.5},
    )
    music, preferences = 0.5 * NUM_PAIRS * 0.75, NUM_PAIRS * 0.75
    quantities = plan.quantities
    assert quantities["mix.music"].expected == music == 45
    assert quantities["mix.preferences"].expected == preferences == 90
    assert quantities["train.pairs_seen"].expected == 180
    assert quantities["train.passes_music"] == quantities["train.passes_preferences"]
    assert quantities["train.passes_music"].expected == pytest.approx(180 / 135)
    mean = (preferences * D_TOKENS + music * MUSIC_TOKENS) / (music + preferences)
    assert quantities["train.tokens"].expected == pytest.approx(180 * mean)
    assert quantities["evaluate.pairs"].expected == 0.5 * NUM_PAIRS * 0.25
    assert quantities["evaluate.tokens"].expected == pytest.approx(15 * MUSIC_TOKENS * 2)


@pytest.mark.parametrize(
    ("weights", "steps", "exact"),
    [
        ({"D": 1, "D_MUSIC": 3}, 9, True),
        ({"D": 0.7, "D_MUSIC": 0.3}, 5, True),
        ({"D": 2, "D_MUSIC": 1}, 7, False),  # 93⅓ pairs of D
        ({"D_MUSIC": 1, "D": 1}, 1, True),
        ({"D": 1e-3, "D_MUSIC": 4}, 40, False),
    ],
)
def test_weights_are_planned_as_the_training_takes_them(
    make_run: MakeRun, weights: dict[str, float], steps: int, exact: bool
) -> None:
    plan = planned(
        make_run,
        mix={"held_out_fraction": 0.25},
        train={"steps": steps, "pairs_per_step": 20, "mix_weights": weights},
        costs={"acceptance": 0.5},
    )
    origins = ["D"] * 90 + ["D_MUSIC"] * 45
    order = PairOrder([f"pair-{number}" for number in range(135)], 0, 20, origins, weights)
    passes = order.passes(steps)
    quantities = plan.quantities
    seen = Counter(origins[index] for step in range(steps) for index in order.step(step))
    assert quantities["train.pairs_seen"].expected == steps * 20 == seen.total()
    found = {
        "D": quantities["train.passes_preferences"].expected,
        "D_MUSIC": quantities["train.passes_music"].expected,
    }
    # The training takes whole pairs, so at most half a pair lies between them.
    assert found["D"] == pytest.approx(passes["D"], abs=1e-12 if exact else 0.5 / 90)
    assert found["D_MUSIC"] == pytest.approx(passes["D_MUSIC"], abs=1e-12 if exact else 0.5 / 45)
    tokens = seen["D"] * D_TOKENS + seen["D_MUSIC"] * MUSIC_TOKENS
    bound = 1e-6 if exact else 0.5 * (MUSIC_TOKENS - D_TOKENS)
    assert quantities["train.tokens"].expected == pytest.approx(tokens, abs=bound)


def test_weights_by_hand(make_run: MakeRun) -> None:
    plan = planned(
        make_run,
        mix={"held_out_fraction": 0.25},
        train={"steps": 9, "pairs_per_step": 20, "mix_weights": {"D": 1, "D_MUSIC": 3}},
        costs={"acceptance": 0.5, "train_tokens_per_second_per_worker": 1000.0},
    )
    quantities = plan.quantities
    # 45 of the 180 pairs are of D, which has 90; 135 are MUSIC pairs, of which there are 45.
    assert quantities["train.passes_preferences"].expected == 0.5
    assert quantities["train.passes_music"].expected == 3.0
    assert quantities["train.passes_preferences"].basis == (
        "0.25 of all that is seen (train.mix_weights), in an order of its own"
    )
    tokens = 45 * D_TOKENS + 135 * MUSIC_TOKENS
    assert quantities["train.tokens"].expected == tokens
    assert quantities["train.wall_hours"].expected == pytest.approx(tokens / 1000 / 2 / 3600)
    # D's pairs are counted; how many MUSIC pairs there will be is a guess.
    low, _, high = quantities["train.passes_music"].bounds
    music = quantities["mix.music"]
    assert (low, high) == (135 / music.high, 135 / music.low)
    assert quantities["train.passes_preferences"].bounds == (0.5, 0.5, 0.5)


def test_the_weight_of_all_there_is_changes_nothing(make_run: MakeRun) -> None:
    plans = [
        planned(make_run, mix={"include_music": False}, train={"mix_weights": weights})
        for weights in (None, {"D": 7})
    ]
    for name in ("passes_preferences", "tokens", "pairs_seen"):
        one, other = (plan.quantities[f"train.{name}"] for plan in plans)
        assert one.bounds == pytest.approx(other.bounds)


def test_weights_that_training_would_refuse_are_told(make_run: MakeRun) -> None:
    plan = planned(
        make_run,
        mix={"held_out_fraction": 0.25},
        train={"steps": 9, "pairs_per_step": 64, "mix_weights": {"D": 1, "D_MUSIC": 3}},
        costs={"acceptance": 0.5},
    )
    assert (
        "train.mix_weights asks for up to 48 pairs of D_MUSIC in a step, but about 45 are left to train on: "
        "lower its weight or train.pairs_per_step, or get more pairs"
    ) in plan.notes
    assert not {"train.passes_music", "train.tokens"} & plan.quantities.keys()


@pytest.mark.parametrize(("over_length", "passes"), [("drop", 1.0), ("cut", 0.5)])
def test_what_is_too_long_is_foreseen(make_run: MakeRun, over_length: str, passes: float) -> None:
    plan = planned(
        make_run,
        mix={"held_out_fraction": 0.0},
        costs={"acceptance": 1.0},
        train={"max_tokens": 64, "over_length": over_length, "steps": 2, "pairs_per_step": 60},
    )
    assert plan.quantities["train.over_length_preferences"].expected == 0.0  # 50 tokens
    assert plan.quantities["train.over_length_music"].expected == 1.0  # 174
    assert plan.quantities["train.passes_preferences"].expected == passes


def test_a_baseline_has_no_music_pairs_to_train_on(make_run: MakeRun) -> None:
    plan = planned(make_run, mix={"include_music": False})
    assert "mix.music" not in plan.quantities and "train.passes_music" not in plan.quantities
    assert plan.quantities["train.tokens"].expected == 2500 * 64 * D_TOKENS


def test_hours_from_a_measured_rate(make_run: MakeRun) -> None:
    plan = planned(
        make_run,
        mix={"include_music": False},
        costs={"train_tokens_per_second_per_worker": 1000.0, "gpu_hour": 2.0},
        train={"use_gpu": True, "num_workers": 4, "pairs_per_step": 10, "steps": 40},
    )
    seconds = 400 * D_TOKENS / 1000
    assert plan.quantities["train.gpu_hours"].expected == pytest.approx(seconds / 3600)
    assert plan.quantities["train.wall_hours"].expected == pytest.approx(seconds / 4 / 3600)
    assert plan.quantities["train.cost"].expected == pytest.approx(seconds / 3600 * 2.0)
    assert plan.quantities["total.gpu_hours"].basis == "train; generate, evaluate not known"


@pytest.mark.parametrize(
    ("train", "operations"),
    [({}, 6), ({"activation_checkpointing": True}, 8), ({"lora": {}}, 4), ({"num_layers": 1}, 2)],
)
def test_hours_from_operations(make_run: MakeRun, tmp_path: Path, train: dict, operations: int) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    plan = planned(
        make_run,
        mix={"include_music": False},
        costs={"peak_tflops": 2.0, "mfu": 0.5},
        train={"use_gpu": True, "base_model": str(tmp_path / "model"), **train},
    )
    tokens = plan.quantities["train.tokens"].expected
    hours = operations * 3 * LAYER * tokens / (0.5 * 2e12) / 3600
    assert plan.quantities["train.gpu_hours"].expected == pytest.approx(hours)


def test_no_rate_no_hours(make_run: MakeRun) -> None:
    plan = planned(make_run, costs={"peak_tflops": 2.0}, train={"use_gpu": True})
    assert "train.gpu_hours" not in plan.quantities
    assert (
        "hours and cost of training unknown: set costs.train_tokens_per_second_per_worker, or "
        "costs.peak_tflops and costs.mfu"
    ) in plan.notes
