"""Which pairs make up a step, and which of them a rank computes.

The order is a function of (seed, step, ids of the pairs) alone, so any number of workers and any
resume see the same global batches. An epoch's order sorts the ids by a hash: it depends neither on
the files' order nor on a random generator's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from music_ray.schema import content_id


class PairOrder:
    """The endless stream of pairs: one permutation an epoch, cut into steps.

    A step may begin in one epoch and end in the next; every pair stands exactly once in an epoch.
    """

    def __init__(self, ids: Sequence[str], seed: int, pairs_per_step: int) -> None:
        self.ids, self.seed, self.pairs_per_step = ids, seed, pairs_per_step
        self._epochs: dict[int, list[int]] = {}

    def step(self, step: int) -> list[int]:
        """Indices of the pairs of a step (steps count from 0), in the stream's order."""
        start = step * self.pairs_per_step
        return [self._at(position) for position in range(start, start + self.pairs_per_step)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self.ids))
        if epoch not in self._epochs:
            self._epochs = {number: self._epochs[number] for number in self._epochs if number == epoch - 1}
            self._epochs[epoch] = self._permutation(epoch)
        return self._epochs[epoch][place]

    def _permutation(self, epoch: int) -> list[int]:
        keys = [content_id(["order", self.seed, epoch, one]) for one in self.ids]
        return sorted(range(len(keys)), key=lambda index: (keys[index], index))


@dataclass(frozen=True)
class Placed:
    """A pair of the global batch: its place in the step and its index among all pairs."""

    place: int
    index: int


def micro_steps(
    step: Sequence[int], lengths: Sequence[int], rank: int, world_size: int, micro_pairs: int
) -> list[list[Placed]]:
    """One rank's micro-steps of a step: the same number on every rank, some perhaps empty.

    Pairs are dealt in the order of their length, back and forth over the ranks, so that the ranks
    get alike amounts of work and a micro-step holds pairs of alike length.

    Args:
        step: indices of the step's pairs, as PairOrder.step gives them.
        lengths: tokens of each of these pairs.
    """
    by_length = sorted(range(len(step)), key=lambda place: (-lengths[place], place))
    mine = []
    for turn, place in enumerate(by_length):
        lap, seat = divmod(turn, world_size)
        if rank == (seat if lap % 2 == 0 else world_size - 1 - seat):
            mine.append(Placed(place, step[place]))
    most = -(-len(step) // world_size)
    count = -(-most // micro_pairs)
    return [mine[number * micro_pairs : (number + 1) * micro_pairs] for number in range(count)]
