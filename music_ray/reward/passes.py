"""Forward and backward passes of a step's pairs on this rank, packed or padded.

Every pass goes through `engine(...)`, and every rank takes the same number of passes: ZeRO-3 gathers
parameters collectively, so a rank without pairs of its own takes a pass that adds nothing. The
module knows pairs as token ids; steps, learning rates and logs are the loop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from music_ray.config import TrainConfig
from music_ray.reward.data import PairTokens
from music_ray.reward.order import micro_steps
from music_ray.reward.packing import Pack, make_pack, num_shared, plan_packs


@dataclass(frozen=True)
class Rank:
    """Where this process stands among the workers."""

    rank: int
    world_size: int
    device: Any


class Passes:
    """The passes of a reward model in a DeepSpeed engine."""

    def __init__(self, train: TrainConfig, engine: Any, rank: Rank, pad_token_id: int) -> None:
        self.train, self.engine, self.rank, self.pad_token_id = train, engine, rank, pad_token_id
        self.share = train.packing == "shared_prefix"
        self.packed = train.packing != "padded"
        # FlexAttention is compiled for every length of a pack, so packs are padded to multiples of a quarter
        # of micro_tokens: four lengths by default, and more where one pair is longer than micro_tokens.
        self._multiple = max(128, train.micro_tokens // 4 // 128 * 128) if train.use_gpu else 1

    def learn(self, pairs: PairTokens, batch: Sequence[int]) -> tuple[Any, Any, int]:
        """Forward and backward passes of a step's pairs; the optimizer's step is the caller's.

        Collective: every rank must call it with the same batch.

        Returns:
            (float32 rewards [2, b]: chosen and rejected; float32 losses [b]; tokens that were computed
            on all ranks, padding included). The same on every rank.
        """
        import torch

        from music_ray.reward.loss import pair_losses

        margins = torch.from_numpy(pairs.margins[np.asarray(batch)]).to(self.rank.device)
        micro = self._plan(pairs, batch)
        rewards = self._nothing(len(batch))
        computed = 0
        for number, places in enumerate(micro):
            self.engine.set_gradient_accumulation_boundary(number == len(micro) - 1)
            chosen, rejected, tokens = self._forward(pairs, batch, places)
            losses = pair_losses(self.train.loss, chosen, rejected, margins[places or [0]])
            # DeepSpeed averages over ranks; the step's loss is the mean over all its pairs.
            weight = self.rank.world_size / len(batch) if places else 0.0
            self.engine.backward(losses.sum() * weight, scale_wrt_gas=False)
            self._note(rewards, places, chosen.detach(), rejected.detach())
            computed += tokens
        found, computed = self._shared(rewards, computed)
        return found, pair_losses(self.train.loss, found[0], found[1], margins), computed

    def score(self, pairs: PairTokens, batch: Sequence[int]) -> Any:
        """Rewards of pairs without gradients, float32 [2, b]: chosen and rejected.

        Collective, and the same on every rank: a pair is computed once, on one rank, whatever the
        number of pairs and ranks.
        """
        import torch

        rewards = self._nothing(len(batch))
        self.engine.eval()
        with torch.no_grad():
            for places in self._plan(pairs, batch):
                self._note(rewards, places, *self._forward(pairs, batch, places)[:2])
        self.engine.train()
        return self._shared(rewards, 0)[0]

    # -- what is computed together -----------------------------------------------------------------

    def _plan(self, pairs: PairTokens, batch: Sequence[int]) -> list[list[int]]:
        """This rank's places in the batch, pass by pass."""
        rank, world_size = self.rank.rank, self.rank.world_size
        if self.packed:
            costs = [self._cost(*pairs.sides(index)) for index in batch]
            return plan_packs(costs, world_size, self.train.micro_tokens).of_rank(rank)
        lengths = [int(pairs.lengths[index]) for index in batch]
        dealt = micro_steps(batch, lengths, rank, world_size, self.train.micro_pairs)
        return [[one.place for one in placed] for placed in dealt]

    def _cost(self, chosen: np.ndarray, rejected: np.ndarray) -> int:
        shared = num_shared(chosen, rejected) if self.share else 0
        return len(chosen) + len(rejected) - shared

    def _forward(self, pairs: PairTokens, batch: Sequence[int], places: list[int]) -> tuple[Any, Any, int]:
        """(chosen rewards [n], rejected rewards [n], tokens computed); a pair of nothing without places."""
        sides = [pairs.sides(batch[place]) for place in places]
        if not sides:
            nothing = np.asarray([self.pad_token_id], np.int32)
            sides = [(nothing, nothing)]
        if self.packed:
            pack = make_pack(sides, share=self.share, multiple=self._multiple).to(self.rank.device)
            rewards = run_pack(self.engine, pack)
            tokens = pack.layout.num_tokens
        else:
            from music_ray.reward_model import pad_right

            sequences = [chosen for chosen, _ in sides] + [rejected for _, rejected in sides]
            inputs = [one.to(self.rank.device) for one in pad_right(sequences, self.pad_token_id)]
            rewards = self.engine(*inputs)
            tokens = inputs[0].numel()
        chosen, rejected = rewards.chunk(2)
        return chosen, rejected, tokens if places else 0

    # -- over all ranks ----------------------------------------------------------------------------

    def _nothing(self, number: int) -> Any:
        import torch

        return torch.zeros(2, number, device=self.rank.device)

    @staticmethod
    def _note(rewards: Any, places: list[int], chosen: Any, rejected: Any) -> None:
        if places:
            rewards[0, places], rewards[1, places] = chosen, rejected

    def _shared(self, rewards: Any, computed: int) -> tuple[Any, int]:
        """Rewards and token counts of all ranks: each rank has filled in its own pairs, the rest is 0."""
        import torch
        import torch.distributed as dist

        # float64 holds every count of tokens exactly, and a float32 reward too.
        together = torch.cat([rewards.double().flatten(), rewards.new_tensor([computed]).double()])
        dist.all_reduce(together)
        return together[:-1].view_as(rewards).float(), int(together[-1])


def run_pack(model: Any, pack: Pack) -> Any:
    """float32 rewards of a pack's sides, [2b]: chosen, then rejected."""
    return model(
        pack.input_ids,
        last_index=pack.last_index,
        position_ids=pack.position_ids,
        pack_layout=pack.layout,
    )
