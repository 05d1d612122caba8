"""Which pairs make up a step, and which of them a rank computes.

The order is a function of (seed, step, ids of the pairs) alone, and of their origins where these have
weights: any number of workers and any resume see the same global batches. An epoch's order sorts the
ids by a hash: it depends neither on the files' order nor on a random generator's version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from music_ray.schema import content_id


class PairOrder:
    """The endless stream of pairs, cut into steps.

    Without weights the stream is one permutation of all pairs an epoch. With weights, each of two origins
    has a stream and epochs of its own, and the two are interleaved: of the first n pairs, n times its share,
    rounded, are of the first origin. So any stretch of the stream holds each origin's share of it to within
    one pair. A step may begin in one epoch and end in the next; every pair stands exactly once in an epoch.

    Args:
        ids: of all pairs.
        pairs_per_step: pairs in one step.
        origins: of all pairs; empty where neither weights nor `passes` need them.
        weights: a number above 0 for each of the origins; only their ratio counts.
    """

    def __init__(
        self,
        ids: Sequence[str],
        seed: int,
        pairs_per_step: int,
        origins: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.pairs_per_step = pairs_per_step
        self.origins = origins or ["all"] * len(ids)
        names = sorted(weights or ())
        assert not names or set(names) == set(self.origins), "each origin has a weight"
        assert len(names) <= 2, "with more origins some stretch could be off by more than one pair"
        groups = [[index for index, one in enumerate(self.origins) if one == name] for name in names]
        self._streams = [_Stream(members, ids, seed) for members in groups or [list(range(len(ids)))]]
        self._share = shares(weights)[names[0]] if weights else Fraction(1)

    def step(self, step: int) -> list[int]:
        """Indices of the pairs of a step (steps count from 0), in the stream's order."""
        start = step * self.pairs_per_step
        return [self._at(position) for position in range(start, start + self.pairs_per_step)]

    def passes(self, steps: int, labels: Sequence[str] | None = None) -> dict[str, float]:
        """How often, on average, the pairs of each origin have been seen after that many steps.

        With weights this is the number of epochs of the origin; 1.5 is one epoch and half of the next.

        Args:
            labels: other groups to count by, such as the pairs' sources, one of each pair.
        """
        labels = self.origins if labels is None else labels
        seen: Counter[str] = Counter()
        taken = self._taken(steps * self.pairs_per_step)
        for stream, position in zip(self._streams, taken, strict=True):
            epochs, begun = stream.until(position)
            for label, count in Counter(labels[index] for index in stream.members).items():
                seen[label] += epochs * count
            seen.update(labels[index] for index in begun)
        return {label: seen[label] / count for label, count in sorted(Counter(labels).items())}

    def _at(self, position: int) -> int:
        before, after = self._taken(position), self._taken(position + 1)
        [index] = [
            stream.at(start)
            for stream, start, end in zip(self._streams, before, after, strict=True)
            if end > start
        ]
        return index

    def _taken(self, position: int) -> list[int]:
        """How many pairs of each stream stand before a position."""
        first = int(position * self._share + Fraction(1, 2))
        return [first, position - first][: len(self._streams)]


def shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Each name's share of the sum, exactly: 0.7 is 7/10, so the millionth pair is where it should be."""
    parts = {name: Fraction(str(weight)) for name, weight in weights.items()}
    return {name: part / sum(parts.values()) for name, part in parts.items()}


class _Stream:
    """Some of the pairs, for ever: one permutation of them an epoch."""

    def __init__(self, members: Sequence[int], ids: Sequence[str], seed: int) -> None:
        self.members, self.ids, self.seed = members, ids, seed
        self._epochs: dict[int, list[int]] = {}

    def at(self, position: int) -> int:
        """Index of the pair at a position, from 0."""
        epoch, place = divmod(position, len(self.members))
        return self._order(epoch)[place]

    def until(self, position: int) -> tuple[int, list[int]]:
        """(whole epochs before a position, indices of the pairs of the epoch begun since)."""
        epochs, place = divmod(position, len(self.members))
        return epochs, self._order(epochs)[:place] if place else []

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            self._epochs = {number: self._epochs[number] for number in self._epochs if number == epoch - 1}
            keys = {index: content_id(["order", self.seed, epoch, self.ids[index]]) for index in self.members}
            self._epochs[epoch] = sorted(self.members, key=lambda index: (keys[index], index))
        return self._epochs[epoch]


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
