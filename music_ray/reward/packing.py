"""Packs: which pairs of a step are computed together, on which rank, and as which row of tokens.

A pair takes its common prefix once and both sides' remainders: [prefix, chosen rest, rejected rest].
Packs are filled by tokens and not by pairs, so that no token is padding and every rank gets the same
number of micro-steps with alike amounts of work: ZeRO-3 gathers parameters collectively, and the
fullest rank decides how long a micro-step takes.

The plan knows lengths, the row knows token ids; neither knows losses or engines.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from music_ray.packed_layout import PackLayout, Stretch, position_ids


@dataclass(frozen=True)
class Pack:
    """Pairs as one row of tokens."""

    input_ids: Any
    """Token ids, [1, s]."""
    position_ids: Any
    """Place of each token in its conversation, [1, s]."""
    last_index: Any
    """Places in the row of the pooled tokens: all chosen sides, then all rejected ones, [2b]."""
    layout: PackLayout

    def to(self, device: Any) -> Pack:
        """The same pack on a device."""
        input_ids, position_ids, last_index = (
            one.to(device) for one in (self.input_ids, self.position_ids, self.last_index)
        )
        return Pack(input_ids, position_ids, last_index, self.layout)


def num_shared(chosen: np.ndarray, rejected: np.ndarray) -> int:
    """Length of the sides' common prefix, [s] each; a side's last token is never in it.

    The pooled tokens must be the sides' own: where one side is the beginning of the other, its last
    token sees another side's tokens otherwise.
    """
    limit = min(len(chosen), len(rejected)) - 1
    differs = np.flatnonzero(chosen[:limit] != rejected[:limit])
    return int(differs[0]) if differs.size else max(limit, 0)


def make_pack(sides: Sequence[tuple[np.ndarray, np.ndarray]], *, share: bool, multiple: int = 1) -> Pack:
    """One row of pairs.

    Args:
        sides: token ids of chosen and rejected side of each pair, [s] each, none empty.
        share: compute the common prefix of a pair's sides once.
        multiple: the row is padded at its end to a multiple of so many tokens (FlexAttention is
            compiled for every length anew).
    """
    import torch

    parts: list[np.ndarray] = []
    stretches: list[Stretch] = []
    chosen_last, rejected_last = [], []
    place = 0
    for chosen, rejected in sides:
        shared = num_shared(chosen, rejected) if share else 0
        middle = place + len(chosen)
        end = middle + len(rejected) - shared
        prefix = (place, place + shared) if shared else (0, 0)
        stretches += [Stretch(place, middle), Stretch(middle, end, *prefix)]
        parts += [chosen, rejected[shared:]]
        chosen_last.append(middle - 1)
        rejected_last.append(end - 1)
        place = end
    total = -(-place // multiple) * multiple
    parts.append(np.zeros(total - place, np.int32))
    return Pack(
        input_ids=torch.from_numpy(np.concatenate(parts).astype(np.int64))[None],
        position_ids=position_ids(stretches, total)[None],
        last_index=torch.tensor(chosen_last + rejected_last),
        layout=PackLayout(tuple(stretches), total),
    )


@dataclass(frozen=True)
class PackPlan:
    """One step's packs: the same number of micro-steps on every rank, some perhaps empty."""

    micro_steps: list[list[list[int]]]
    """[micro-step][rank]: places of pairs in the step."""
    fullest: list[int]
    """Tokens of the fullest rank, a micro-step."""

    def of_rank(self, rank: int) -> list[list[int]]:
        """A rank's places, micro-step by micro-step."""
        return [ranks[rank] for ranks in self.micro_steps]


def plan_packs(costs: Sequence[int], world_size: int, micro_tokens: int) -> PackPlan:
    """Deals a step's pairs to packs: as few micro-steps as hold them, packs as even as can be.

    The longest pair goes first, always into the emptiest pack (longest processing time first: the
    fullest pack is at most 4/3 of the best possible). The packs are then sorted, so that a micro-step
    has packs of alike size on all ranks.

    Args:
        costs: tokens that each pair of the step takes in a pack.
        micro_tokens: what a pack may hold; a longer pair has a pack of its own.
    """
    order = sorted(range(len(costs)), key=lambda place: (-costs[place], place))
    longest = max(costs, default=0)
    capacity = max(micro_tokens, longest)
    count = max(1, -(-sum(costs) // (capacity * world_size)))
    while True:
        packs = _fill(order, costs, count * world_size)
        if max(load for load, _ in packs) <= capacity:
            break
        count += 1
    packs.sort(key=lambda pack: (-pack[0], pack[1]))
    rows = [packs[number * world_size : (number + 1) * world_size] for number in range(count)]
    # Back and forth over the ranks, so that none has the fuller pack of every micro-step.
    rows = [row if number % 2 == 0 else row[::-1] for number, row in enumerate(rows)]
    return PackPlan([[places for _, places in row] for row in rows], [max(row)[0] for row in rows])


def _fill(order: Sequence[int], costs: Sequence[int], number: int) -> list[tuple[int, list[int]]]:
    """(tokens, places) of each pack."""
    heap = [(0, pack) for pack in range(number)]
    places: list[list[int]] = [[] for _ in range(number)]
    loads = [0] * number
    for place in order:
        load, pack = heapq.heappop(heap)
        places[pack].append(place)
        loads[pack] = load + costs[place]
        heapq.heappush(heap, (loads[pack], pack))
    return list(zip(loads, places, strict=True))
