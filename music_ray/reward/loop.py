"""One rank's way through the training steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from music_ray.config import RunConfig
from music_ray.errors import StageError
from music_ray.reward.data import PairTokens
from music_ray.reward.metrics import FlopCounter, StepResult, step_result
from music_ray.reward.order import PairOrder
from music_ray.reward.passes import Passes
from music_ray.schema import content_id

if TYPE_CHECKING:
    from music_ray.reward.interrupt import InterruptWatch
    from music_ray.reward.logbook import Logbook
    from music_ray.reward.preemption import PreemptionWatch
    from music_ray.reward.validate import Validation


class Trainer:
    """Steps of a reward model on the pairs of a run."""

    def __init__(
        self,
        config: RunConfig,
        engine: Any,
        pairs: PairTokens,
        order: PairOrder,
        passes: Passes,
        flops: FlopCounter | None = None,
    ) -> None:
        self.config, self.train = config, config.train
        self.engine, self.pairs, self.order, self.passes, self.flops = engine, pairs, order, passes, flops

    def step(self, step: int) -> StepResult:
        """One optimizer step (steps count from 0).

        Raises:
            StageError: a loss or gradient is not a finite number; the pairs are named.
        """
        import torch

        from music_ray.reward.schedule import learning_rate
        from music_ray.reward.zero3 import set_learning_rate

        started = time.perf_counter()
        batch = self.order.step(step)
        # Dropout (of LoRA, say) must not depend on what ran before a resume.
        torch.manual_seed(content_id(["step", self.config.seed, step, self.passes.rank.rank]))
        rewards, losses, computed = self.passes.learn(self.pairs, batch)
        rate = learning_rate(self.train, step)
        self._check_losses(losses, batch, step)
        set_learning_rate(self.engine, rate)
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise StageError(
                f"the gradient of step {step + 1} is not finite (pairs {self._name(batch)}): lower "
                f"train.learning_rate ({self.train.learning_rate}) or look at these pairs"
            )
        return step_result(
            pairs=self.pairs,
            batch=batch,
            rewards=rewards,
            losses=losses,
            gradient_norm=norm,
            learning_rate=rate,
            computed_tokens=computed,
            seconds=time.perf_counter() - started,
            flops=self.flops,
        )

    def _check_losses(self, losses: Any, batch: list[int], step: int) -> None:
        broken = (~losses.isfinite()).nonzero().flatten().tolist()
        if broken:
            names = self._name([batch[place] for place in broken])
            raise StageError(
                f"the loss of step {step + 1} is not a number, because of pairs {names}: look at them in the "
                "mix, lower train.learning_rate, or train in float32"
            )

    def _name(self, batch: list[int]) -> str:
        shown = [self.pairs.ids[index] for index in batch[:8]]
        return ", ".join(shown) + (f" and {len(batch) - 8} more" if len(batch) > 8 else "")


def run_steps(
    trainer: Trainer,
    first: int,
    validation: Validation,
    watch: PreemptionWatch,
    interrupt: InterruptWatch,
    book: Logbook | None,
    save: Callable[[int], None],
) -> int:
    """Steps from `first` (count of finished steps) to the configured number, or until Ctrl-C in the driver.

    A checkpoint is saved every train.checkpoint_every steps, after the last one, when the held-out pairs
    were never judged better, before a node is taken away, and before an end by Ctrl-C.

    Args:
        book: the logs; None on all ranks but the first.
        save: makes a checkpoint of that many finished steps, on all ranks together.

    Returns:
        the count of finished steps; fewer than configured after Ctrl-C.
    """
    train = trainer.train
    for done in range(first + 1, train.steps + 1):
        result = trainer.step(done - 1)
        if book is not None:
            ids = [trainer.pairs.ids[index] for index in trainer.order.step(done - 1)]
            book.add(done, result, ids)
        is_best = False
        if validation.due(done):
            evaluation = validation.evaluate(done)
            is_best = evaluation.is_best
            if book is not None:
                book.add_evaluation(evaluation)
        is_leaving, is_stopped = watch.imminent(), interrupt.wanted()
        is_due = done % train.checkpoint_every == 0 or done == train.steps
        if is_due or is_best or is_leaving or is_stopped:
            save(done)
        if is_stopped:
            return done
    return train.steps
