"""Choosing pairs so that what can be counted does not tell chosen from rejected.

What is counted of a pair has a mirror image: the same with chosen and rejected exchanged. Pairs are kept so
that each count comes exactly as often as its mirror image, within each cell. Then a classifier that sees the
counts alone, however clever, is right in half of the pairs. This module does not know what is counted, nor
where pairs come from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Pair = TypeVar("Pair")


class Exchangeable(Generic[Pair]):
    """Takes pairs as they come and keeps a balanced choice of them."""

    def __init__(self, quota: dict[Hashable, int]) -> None:
        """
        Args:
            quota: pairs wanted of each cell.
        """
        self.quota = quota
        self.kept: dict[Hashable, list[Pair]] = {cell: [] for cell in quota}
        self.num_kept: Counter[Hashable] = Counter()
        """Kept pairs by cell and kind."""
        self._waiting: dict[Hashable, list[tuple[Hashable, Pair]]] = defaultdict(list)

    def is_full(self, cell: Hashable) -> bool:
        """Whether a cell has all its pairs."""
        return len(self.kept[cell]) >= self.quota[cell]

    def offer(
        self, cell: Hashable, kind: Hashable, counted: Hashable, mirrored: Hashable, pair: Pair
    ) -> None:
        """Keeps a pair at once if its counts are their own mirror image, else together with one of those.

        Args:
            kind: what num_kept counts it under.
            counted: what is counted of the pair.
            mirrored: the same with chosen and rejected exchanged.
        """
        if self.is_full(cell):
            return
        if counted == mirrored:
            self._keep(cell, kind, pair)
            return
        others = self._waiting[cell, mirrored]
        if others and len(self.kept[cell]) + 2 <= self.quota[cell]:
            self._keep(cell, kind, pair)
            self._keep(cell, *others.pop())
        elif not others:
            self._waiting[cell, counted].append((kind, pair))

    def keep_all(self, cell: Hashable, pairs: Sequence[Pair]) -> None:
        """Keeps pairs that balance each other, if there is room for all of them."""
        if len(self.kept[cell]) + len(pairs) <= self.quota[cell]:
            self.kept[cell].extend(pairs)

    def all(self) -> list[Pair]:
        """Every kept pair, cell by cell."""
        return [pair for pairs in self.kept.values() for pair in pairs]

    def _keep(self, cell: Hashable, kind: Hashable, pair: Pair) -> None:
        self.kept[cell].append(pair)
        self.num_kept[cell, kind] += 1
