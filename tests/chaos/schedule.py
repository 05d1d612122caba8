"""When which fault happens: a function of a seed alone. Knows nothing of clusters, drivers or clocks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    """Seconds after the start."""
    kind: str
    draw: float
    """In [0, 1): which of those that it may hit."""


def make_schedule(seed: int, kinds: Mapping[str, int], seconds: float, mean_gap: float) -> list[Fault]:
    """Faults in the order of time, the last one before `seconds`.

    Gaps are uniform between half and one and a half of their mean. Kinds are dealt from a shuffled deck with
    so many cards of each kind, so that none is left out by chance.

    Args:
        kinds: cards of each kind in the deck.
        mean_gap: seconds between two faults, on average.
    """
    draws = random.Random(seed)
    faults: list[Fault] = []
    deck: list[str] = []
    at = 0.0
    while True:
        at += mean_gap * draws.uniform(0.5, 1.5)
        if at >= seconds:
            return faults
        if not deck:
            deck = [kind for kind, cards in sorted(kinds.items()) for _ in range(cards)]
            draws.shuffle(deck)
        faults.append(Fault(at, deck.pop(), draws.random()))
