"""One rank's way through the training steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from music_ray.config import RunConfig
from music_ray.errors import StageError
from music_ray.reward.data import PairTokens
from music_ray.reward.order import PairOrder, Placed, micro_steps
from music_ray.schema import content_id

if TYPE_CHECKING:
    from music_ray.reward_model import TokenIds


@dataclass(frozen=True)
class Rank:
    """Where this process stands among the workers."""

    rank: int
    world_size: int
    device: Any


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step saw, the same on every rank and for every number of ranks."""

    loss: float
    accuracy: float
    margin: float
    chosen_reward: float
    rejected_reward: float
    gradient_norm: float
    learning_rate: float
    pairs: int
    tokens: int
    """Real tokens of both sides, without padding."""
    seconds: float


class Trainer:
    """Steps of a reward model on the pairs of a run."""

    def __init__(
        self, config: RunConfig, engine: Any, pairs: PairTokens, rank: Rank, pad_token_id: int
    ) -> None:
        self.config, self.train = config, config.train
        self.engine, self.pairs, self.rank, self.pad_token_id = engine, pairs, rank, pad_token_id
        self.order = PairOrder(pairs.ids, config.seed, config.train.pairs_per_step)

    def step(self, step: int) -> StepResult:
        """One optimizer step (steps count from 0).

        Raises:
            StageError: a loss or gradient is not a finite number; the pairs are named.
        """
        import torch
        import torch.distributed as dist

        from music_ray.reward.schedule import learning_rate
        from music_ray.reward.zero3 import set_learning_rate

        started = time.perf_counter()
        batch = self.order.step(step)
        lengths = [int(self.pairs.lengths[index]) for index in batch]
        mine = micro_steps(batch, lengths, self.rank.rank, self.rank.world_size, self.train.micro_pairs)
        # Dropout (of LoRA, say) must not depend on what ran before a resume.
        torch.manual_seed(content_id(["step", self.config.seed, step, self.rank.rank]))
        # Each rank fills in the rewards of its own pairs; the sum over ranks holds all of them.
        rewards = torch.zeros(2, len(batch), device=self.rank.device)  # [chosen | rejected, pair]
        for number, placed in enumerate(mine):
            self.engine.set_gradient_accumulation_boundary(number == len(mine) - 1)
            self._micro_step(placed, rewards, len(batch))
        dist.all_reduce(rewards)
        rate = learning_rate(self.train, step)
        self._check_rewards(rewards, batch, step)
        set_learning_rate(self.engine, rate)
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise StageError(
                f"the gradient of step {step + 1} is not finite (pairs {self._name(batch)}): lower "
                f"train.learning_rate ({self.train.learning_rate}) or look at these pairs"
            )
        return self._result(rewards, batch, norm, rate, time.perf_counter() - started)

    def _micro_step(self, placed: list[Placed], rewards: Any, total: int) -> None:
        """Forward and backward pass of some pairs; none of them is a pass that adds nothing.

        ZeRO-3 gathers parameters collectively, so every rank must take every pass.
        """
        from music_ray.reward.loss import bradley_terry
        from music_ray.reward_model import pad_right

        sides = [self.pairs.sides(one.index) for one in placed]
        sequences: list[TokenIds] = [chosen for chosen, _ in sides]
        sequences += [rejected for _, rejected in sides]
        if not placed:
            sequences = [[self.pad_token_id], [self.pad_token_id]]
        inputs = [one.to(self.rank.device) for one in pad_right(sequences, self.pad_token_id)]
        chosen, rejected = self.engine(*inputs).chunk(2)
        # DeepSpeed averages over ranks; the step's loss is the mean over all its pairs.
        weight = self.rank.world_size / total if placed else 0.0
        loss = bradley_terry(chosen, rejected).sum() * weight
        self.engine.backward(loss, scale_wrt_gas=False)
        for row, one in enumerate(placed):
            rewards[0, one.place] = chosen[row].detach()
            rewards[1, one.place] = rejected[row].detach()

    def _check_rewards(self, rewards: Any, batch: list[int], step: int) -> None:
        broken = (~rewards.isfinite()).any(dim=0).nonzero().flatten().tolist()
        if broken:
            names = self._name([batch[place] for place in broken])
            raise StageError(
                f"the loss of step {step + 1} is not a number, because of pairs {names}: look at them in the "
                "mix, lower train.learning_rate, or train in float32"
            )

    def _name(self, batch: list[int]) -> str:
        shown = [self.pairs.ids[index] for index in batch[:8]]
        return ", ".join(shown) + (f" and {len(batch) - 8} more" if len(batch) > 8 else "")

    def _result(self, rewards: Any, batch: list[int], norm: float, rate: float, seconds: float) -> StepResult:
        from music_ray.reward.loss import bradley_terry

        chosen, rejected = rewards
        return StepResult(
            loss=bradley_terry(chosen, rejected).mean().item(),
            accuracy=(chosen > rejected).float().mean().item(),
            margin=(chosen - rejected).mean().item(),
            chosen_reward=chosen.mean().item(),
            rejected_reward=rejected.mean().item(),
            gradient_norm=norm,
            learning_rate=rate,
            pairs=len(batch),
            tokens=sum(sum(map(len, self.pairs.sides(index))) for index in batch),
            seconds=seconds,
        )


def run_steps(
    trainer: Trainer,
    first: int,
    on_step: Callable[[int, StepResult], None],
    save: Callable[[int], None],
) -> None:
    """Steps from `first` (count of finished steps) to the configured number, saving as configured.

    Args:
        on_step: called after each step with the count of finished steps.
        save: makes a checkpoint of that many finished steps.
    """
    train = trainer.train
    for step in range(first, train.steps):
        result = trainer.step(step)
        on_step(step + 1, result)
        if (step + 1) % train.checkpoint_every == 0 or step + 1 == train.steps:
            save(step + 1)
