"""Numbers of a step, worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from music_ray.reward.data import PairTokens
from music_ray.reward.metrics import FlopCounter, StepResult, device_peak, step_result
from music_ray.reward.tokenise import TOKENS_SCHEMA
from music_ray.reward_model import load_reward_model


def make_pairs(*sides: tuple[list[int], list[int]]) -> PairTokens:
    """Pairs of these token ids: origins take turns, the third pair is of a source of its own."""
    rows = [
        {
            "id": f"pair-{number}",
            "source": "forum" if number == 2 else "chat",
            "origin": "D_MUSIC" if number % 2 else "D",
            "chosen": chosen,
            "rejected": rejected,
        }
        for number, (chosen, rejected) in enumerate(sides)
    ]
    return PairTokens(pa.Table.from_pylist(rows, schema=TOKENS_SCHEMA))


PAIRS = make_pairs(([5, 6, 7, 8], [5, 6, 9]), ([1, 2], [1, 3]), ([4, 4, 4], [2]))


def measure(**changed: Any) -> StepResult:
    facts: dict[str, Any] = {
        "pairs": PAIRS,
        "batch": [2, 0, 1],
        "rewards": torch.tensor([[1.0, 2.0, 0.5], [0.0, 2.0, 1.5]]),
        "losses": torch.tensor([0.3, 0.6, 1.2]),
        "gradient_norm": 4.0,
        "learning_rate": 1e-6,
        "computed_tokens": 20,
        "seconds": 0.5,
        "flops": None,
    }
    return step_result(**facts | changed)


def test_a_step_by_hand() -> None:
    found = measure()
    assert found.loss == pytest.approx(0.7)
    assert found.accuracy == pytest.approx(1 / 3)  # a win, a tie, a loss: the tie counts as wrong
    assert found.margin == pytest.approx(0.0)
    assert (found.chosen_reward, found.rejected_reward) == pytest.approx((3.5 / 3, 3.5 / 3))
    assert found.chosen_reward_std == pytest.approx(math.sqrt((1 + 4 + 0.25) / 3 - (3.5 / 3) ** 2))
    assert found.rejected_reward_std == pytest.approx(math.sqrt((4 + 2.25) / 3 - (3.5 / 3) ** 2))
    assert (found.pairs, found.tokens) == (3, 15)
    assert (found.tokens_per_second, found.pairs_per_second) == (30.0, 6.0)
    assert (found.gradient_norm, found.learning_rate, found.seconds) == (4.0, 1e-6, 0.5)
    assert found.mfu is None


def test_pairs_are_told_apart_by_origin_and_by_source() -> None:
    found = measure()
    assert {name: group.pairs for name, group in found.by_origin.items()} == {"D": 2, "D_MUSIC": 1}
    assert {name: group.pairs for name, group in found.by_source.items()} == {"chat": 2, "forum": 1}
    assert vars(found.by_origin["D_MUSIC"]) == pytest.approx(
        {"pairs": 1, "loss": 1.2, "accuracy": 0.0, "margin": -1.0}
    )
    assert vars(found.by_source["forum"]) == pytest.approx(
        {"pairs": 1, "loss": 0.3, "accuracy": 1.0, "margin": 1.0}
    )


@pytest.mark.parametrize(
    ("computed", "padding", "shared"),
    [(15, 0.0, 0.0), (20, 0.25, 0.0), (12, 0.0, 0.2)],
)
def test_padding_is_what_was_computed_for_nothing_and_sharing_what_was_spared(
    computed: int, padding: float, shared: float
) -> None:
    found = measure(computed_tokens=computed)
    assert (found.padding_share, found.shared_share) == pytest.approx((padding, shared))


def test_one_pair_has_no_spread() -> None:
    found = measure(batch=[1], rewards=torch.tensor([[1.0], [0.0]]), losses=torch.tensor([0.3]))
    assert (found.chosen_reward_std, found.rejected_reward_std) == (0.0, 0.0)


# -- FLOPs -----------------------------------------------------------------------------------------


def sides(*lengths: tuple[int, int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (chosen, rejected, common prefix) lengths."""
    made = []
    for chosen, rejected, shared in lengths:
        prefix = [7] * shared
        made.append((prefix + [1] * (chosen - shared), prefix + [2] * (rejected - shared)))
    return [(np.array(one, np.int32), np.array(other, np.int32)) for one, other in made]


def test_flops_by_hand() -> None:
    counter = FlopCounter(matrix_weights=1000, trained_weights=1000, attention_width=8, windows=(None, None))
    # 3 + 2 tokens, nothing shared: 6 query-key pairs and 3, in two layers.
    assert counter.flops(sides((3, 2, 0))) == 6 * 1000 * 5 + 12 * 8 * 2 * (6 + 3)
    # Two tokens are common: 3 tokens of the chosen side and 2 more, and the prefix's 3 query-key pairs once.
    assert counter.flops(sides((3, 4, 2))) == 6 * 1000 * 5 + 12 * 8 * 2 * (6 + 10 - 3)


def test_frozen_weights_need_no_gradients_of_their_own() -> None:
    counter = FlopCounter(matrix_weights=1000, trained_weights=10, attention_width=8, windows=())
    assert counter.flops(sides((3, 2, 0))) == (4 * 1000 + 2 * 10) * 5


@given(tokens=st.integers(1, 40), window=st.integers(1, 12))
def test_a_window_leaves_out_what_the_mask_leaves_out(tokens: int, window: int) -> None:
    counter = FlopCounter(0, 0, attention_width=1, windows=(window,))
    seen = sum(1 for query in range(tokens) for key in range(query + 1) if key > query - window)
    assert counter.flops(sides((tokens, 1, 0))) == 12 * (seen + 1)


def test_utilisation_is_needed_over_possible_work() -> None:
    counter = FlopCounter(1000, 1000, attention_width=8, windows=(), peak_flops=60_000.0)
    assert counter.utilisation(sides((3, 2, 0)), seconds=2.0) == pytest.approx(0.25)
    assert measure(flops=counter, seconds=2.0).mfu == pytest.approx(6000 * (4 + 1 + 2 + 1 + 3 + 1) / 120_000)


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_the_count_is_what_torch_counts(family: str, gemma2_folder: Path, llama_folder: Path) -> None:
    """torch counts every product that eager attention makes, the masked half too, and the reward head."""
    from torch.utils.flop_counter import FlopCounterMode

    from music_ray.reward_model import RewardModel

    folder = gemma2_folder if family == "gemma2" else llama_folder
    classifier = load_reward_model(str(folder), attention="eager")
    counter = FlopCounter.of(classifier)
    assert counter.windows == ((16, None, 16) if family == "gemma2" else (None, None, None))
    tokens, layers, width = 24, 3, 40
    ids = torch.arange(tokens)[None] % 20 + 3
    with FlopCounterMode(display=False) as counted:
        RewardModel(classifier)(ids, torch.ones_like(ids), torch.tensor([tokens - 1])).sum().backward()
    head = 6 * 40
    square = 12 * width * layers * tokens**2
    weights = FlopCounter(counter.matrix_weights, counter.trained_weights, width, ())
    one_side = weights.flops(sides((tokens, 1, 0))) / (tokens + 1) * tokens
    assert counted.get_total_flops() == one_side + square + head


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", None),
        ("NVIDIA L40", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_peaks_are_known_by_the_devices_name(name: str, peak: float | None) -> None:
    assert device_peak(name) == peak
    assert device_peak(name, num_devices=4) == (peak and 4 * peak)


def test_other_number_formats_have_no_peak_here() -> None:
    assert device_peak("NVIDIA H200", precision="float32") is None
