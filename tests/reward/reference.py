"""What ZeRO-3 training must reproduce: the same steps in plain torch, one process, no batching."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from music_ray.chat import ChatFormat
from music_ray.config import LossConfig
from music_ray.reward.data import PairTokens, prepare_tokens
from music_ray.reward.order import PairOrder
from music_ray.reward.schedule import learning_rate
from music_ray.reward_model import head_seed, load_reward_model
from music_ray.rundir import RunDir


def train_plainly(run: RunDir) -> tuple[list[float], list[float], Any]:
    """(losses, gradient norms, trained classifier) by Hugging Face's own pooling, a pair at a time."""
    train = run.config.train
    chat = ChatFormat.load(train.base_model)
    pairs = PairTokens.open(run, prepare_tokens(run, chat).name)
    model = load_reward_model(
        train.base_model, num_layers=train.num_layers, head_seed=head_seed(run.config.seed)
    )
    decayed = [one for name, one in model.named_parameters() if "norm" not in name]
    others = [one for name, one in model.named_parameters() if "norm" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=train.adam_betas,
    )
    order = PairOrder(pairs.ids, run.config.seed, train.pairs_per_step)
    losses, norms = [], []
    for step in range(train.steps):
        optimizer.zero_grad()
        total = 0.0
        for index in order.step(step):
            chosen, rejected = (
                model(input_ids=torch.tensor(side)[None].long()).logits[0, 0] for side in pairs.sides(index)
            )
            loss = formula(train.loss, chosen, rejected, float(pairs.margins[index])) / train.pairs_per_step
            loss.backward()
            total += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), train.gradient_clipping).item())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, step)
        optimizer.step()
        losses.append(total)
    return losses, norms, model


def formula(loss: LossConfig, chosen: Any, rejected: Any, margin: float) -> Any:
    """One pair's loss as the configuration's page has it."""
    difference = chosen - rejected - (margin if loss.margin else 0.0)
    smoothing = loss.label_smoothing
    labelled = -(1 - smoothing) * logsigmoid(difference) - smoothing * logsigmoid(-difference)
    return labelled + loss.centring * (chosen + rejected) ** 2


def losses_of(run: RunDir) -> list[float]:
    """Losses of the run's log, whose steps must be 1, 2, 3, …"""
    from music_ray.reward.logbook import read_log

    lines = read_log(run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def model_weights(run: RunDir) -> dict[str, Any]:
    """The exported model's weights."""
    from safetensors.torch import load_file

    return load_file(run.path("model", "model.safetensors"))
