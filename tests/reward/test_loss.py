from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from music_ray.config import LossConfig
from music_ray.reward.loss import bradley_terry, pair_losses


def test_loss_of_equal_rewards_is_log_two() -> None:
    assert bradley_terry(torch.tensor([3.0]), torch.tensor([3.0])).item() == pytest.approx(math.log(2))


def test_loss_is_the_formula() -> None:
    loss = bradley_terry(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0]))
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-1.5)), math.log1p(math.exp(2.0))])


def test_loss_is_computed_in_float32() -> None:
    # In bfloat16 both rewards would be 256 and the loss log 2.
    chosen, rejected = torch.tensor([256.0]).bfloat16(), torch.tensor([255.0]).bfloat16()
    loss = bradley_terry(chosen, rejected)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.0)))


def test_loss_of_a_hopeless_pair_is_finite_and_linear() -> None:
    assert bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0])).item() == pytest.approx(1000.0)


def test_gradient_pushes_the_sides_apart_by_the_same_amount() -> None:
    chosen, rejected = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    bradley_terry(chosen, rejected).sum().backward()
    assert (chosen.grad.item(), rejected.grad.item()) == (-0.5, 0.5)


# -- the options, against formulas written out by hand ----------------------------------------------

CHOSEN, REJECTED = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.5, 1.0, 0.5])
MARGINS = [1.0, 0.25, 0.0]


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def losses(margins: object = None, **loss: object) -> list[float]:
    result = pair_losses(LossConfig.model_validate(loss), CHOSEN, REJECTED, margins)  # type: ignore[arg-type]
    assert result.dtype == torch.float32 and result.shape == (3,)
    return result.tolist()


def test_without_options_the_loss_is_bradley_terrys() -> None:
    assert losses() == losses(MARGINS) == bradley_terry(CHOSEN, REJECTED).tolist()


def test_margin_is_taken_off_the_difference() -> None:
    expected = [-log_sigmoid(1.5 - 1.0), -log_sigmoid(-2.0 - 0.25), -log_sigmoid(0.0)]
    assert losses(np.float32(MARGINS), margin=True) == pytest.approx(expected)
    assert losses(torch.tensor(MARGINS), margin=True) == pytest.approx(expected)
    assert losses(None, margin=True) == losses()


def test_label_smoothing_counts_a_pair_as_turned_round_with_its_probability() -> None:
    expected = [-0.9 * log_sigmoid(one) - 0.1 * log_sigmoid(-one) for one in (1.5, -2.0, 0.0)]
    assert losses(label_smoothing=0.1) == pytest.approx(expected)


def test_smoothed_loss_is_smallest_where_the_model_says_the_labels_probability() -> None:
    best = math.log(0.9 / 0.1)
    difference = torch.tensor([best, best - 0.01, best + 0.01], requires_grad=True)
    smoothed = pair_losses(LossConfig(label_smoothing=0.1), difference, torch.zeros(3))
    assert smoothed[0] < smoothed[1] and smoothed[0] < smoothed[2]
    smoothed.sum().backward()
    assert difference.grad is not None
    assert difference.grad[0].item() == pytest.approx(0.0, abs=1e-7)


def test_centring_pays_for_the_sum_of_the_rewards() -> None:
    expected = [
        -log_sigmoid(1.5) + 0.01 * 2.5**2,
        -log_sigmoid(-2.0) + 0.01 * 0.0**2,
        -log_sigmoid(0.0) + 0.01 * 1.0**2,
    ]
    assert losses(centring=0.01) == pytest.approx(expected)


def test_centring_does_not_act_on_the_difference() -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    (
        pair_losses(LossConfig(centring=0.5), chosen, rejected) - bradley_terry(chosen, rejected)
    ).sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert (chosen.grad - rejected.grad).tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert chosen.grad.tolist() == pytest.approx([2.5, 0.0, 1.0], abs=1e-6)


def test_all_options_together() -> None:
    expected = []
    for chosen, rejected, margin in zip(CHOSEN.tolist(), REJECTED.tolist(), MARGINS, strict=True):
        inside = chosen - rejected - margin
        smoothed = -0.8 * log_sigmoid(inside) - 0.2 * log_sigmoid(-inside)
        expected.append(smoothed + 0.1 * (chosen + rejected) ** 2)
    together = losses(np.float32(MARGINS), margin=True, label_smoothing=0.2, centring=0.1)
    assert together == pytest.approx(expected)


def test_all_options_are_computed_in_float32() -> None:
    loss = LossConfig(margin=True, label_smoothing=0.25, centring=0.01)
    chosen, rejected = torch.tensor([3.0]).bfloat16(), torch.tensor([1.0]).bfloat16()
    # In bfloat16 the margin would be 1.
    result = pair_losses(loss, chosen, rejected, np.array([1.001]))
    inside = 2.0 - 1.001
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(
        -0.75 * log_sigmoid(inside) - 0.25 * log_sigmoid(-inside) + 0.01 * 16.0, rel=1e-6
    )


@pytest.mark.parametrize(
    "values", [{"label_smoothing": 0.5}, {"label_smoothing": -0.1}, {"centring": -1.0}, {"margin": 3}]
)
def test_options_out_of_bounds_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        LossConfig.model_validate(values)
