from __future__ import annotations

import math

import pytest
import torch

from music_ray.reward.loss import bradley_terry


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
