"""The gate near_duplicate: of pairs whose chosen sides say nearly the same, the first in order of id stays.

The one gate that looks at many rollouts together. It takes them in any order and decides at the end,
so that the order of shards changes nothing. It keeps a MinHash signature of each (512 bytes with 128
permutations, however long the text), never the text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import generated
from music_ray.generate.gates.sides import shingles
from music_ray.schema import Rollout

if TYPE_CHECKING:
    import numpy as np

_MISSED = 0.001
"""Share of pairs exactly at the threshold that the bands may overlook; above it, fewer."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Details by id of the rollout."""

    refused: dict[int, str] = field(default_factory=dict)
    """Rollouts that pass every other gate, and are like an earlier one that gives a pair."""
    alone: dict[int, str] = field(default_factory=dict)
    """Rollouts that this gate would refuse if it were the only one."""


class NearDuplicates:
    """Takes every rollout with status ok; `verdicts` says which of them are refused.

    Two chosen sides are near-duplicates when the estimated Jaccard similarity of their generated text
    (runs of three words) reaches near_duplicate_similarity. A text without a word is like no other.
    """

    def __init__(self, gates: GatesConfig) -> None:
        from datasketch import MinHash

        self.threshold = gates.near_duplicate_similarity
        self.num_permutations = gates.minhash_permutations
        self._empty = MinHash(num_perm=self.num_permutations, seed=1)
        self._signatures = bytearray()
        self._ids: list[int] = []
        self._stands: list[bool] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, rollout: Rollout, stands: bool) -> None:
        """Takes note of one rollout.

        Args:
            stands: whether it passes every other gate: only such a one can make a later one a duplicate.
        """
        text = "\n".join(message.text for message in generated(rollout) if message.branch == "chosen")
        found = shingles(text)
        if not found:
            return
        signature = self._empty.copy()
        signature.update_batch([" ".join(shingle).encode("utf-8", "surrogatepass") for shingle in found])
        self._signatures += signature.hashvalues.astype("uint32").tobytes()
        self._ids.append(rollout.id)
        self._stands.append(stands)

    def verdicts(self) -> Verdicts:
        """Who is like whom, decided in order of id."""
        import numpy as np

        found = Verdicts()
        if not self._ids:
            return found
        table = np.frombuffer(self._signatures, dtype=np.uint32).reshape(len(self._ids), -1)
        order = np.argsort(np.asarray(self._ids, dtype=np.int64), kind="stable")
        bands = _band_keys(table, rows_per_band(self.threshold, self.num_permutations))
        buckets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for row in order[_in_company(bands)[order]]:
            keys = list(enumerate(bands[:, row].tolist()))
            earlier = sorted({one for key in keys for one in buckets.get(key, ())}, key=self._ids.__getitem__)
            like = list(self._alike(table, int(row), earlier))
            stands = self._settle(found, int(row), like)
            if stands:
                for key in keys:
                    buckets[key].append(int(row))
        return found

    def _alike(self, table: np.ndarray, row: int, earlier: list[int]) -> Iterator[tuple[int, float]]:
        """Those of the earlier rows that reach the threshold, with their similarity."""
        if earlier:
            for one, shared in zip(
                earlier, (table[earlier] == table[row]).mean(axis=1).tolist(), strict=True
            ):
                if shared >= self.threshold:
                    yield one, shared

    def _settle(self, found: Verdicts, row: int, like: list[tuple[int, float]]) -> bool:
        """Writes one row's verdicts; whether a later row may be a duplicate of it in either sense."""
        own = self._ids[row]
        alone = [(one, shared) for one, shared in like if self._ids[one] not in found.alone]
        real = [
            (one, shared) for one, shared in like if self._stands[one] and self._ids[one] not in found.refused
        ]
        if alone:
            found.alone[own] = self._detail(*alone[0])
        if real and self._stands[row]:
            found.refused[own] = self._detail(*real[0])
        return own not in found.alone or (self._stands[row] and own not in found.refused)

    def _detail(self, one: int, shared: float) -> str:
        return f"the chosen side is about {shared:.2f} like that of music-{self._ids[one]}"


def rows_per_band(threshold: float, num_permutations: int) -> int:
    """How many signature values make a band: the most with which nearly no near-duplicate is overlooked.

    With b = permutations // rows bands, two texts of similarity s share none with probability
    (1 - s^rows)^b.
    """
    rows = 1
    while rows < num_permutations:
        more = rows + 1
        if (1 - threshold**more) ** (num_permutations // more) > _MISSED:
            break
        rows = more
    return rows


def _band_keys(table: np.ndarray, rows: int) -> np.ndarray:
    """One number for each band and row (uint64, [bands, n]); equal bands have equal numbers."""
    import numpy as np

    factors = np.random.default_rng(0).integers(1, 2**63, size=rows, dtype=np.uint64) | np.uint64(1)
    bands = table.shape[1] // rows
    keys = np.empty((bands, len(table)), dtype=np.uint64)
    for band in range(bands):
        # Wraps around on purpose. Chance equals only cost a comparison: similarity is looked at again.
        part = table[:, band * rows : (band + 1) * rows].astype(np.uint64)
        keys[band] = (part * factors).sum(axis=1, dtype=np.uint64)
    return keys


def _in_company(bands: np.ndarray) -> np.ndarray:
    """Which rows share a band with another one (bool, [n]): the others need no place in memory."""
    import numpy as np

    shared = np.zeros(bands.shape[1], dtype=bool)
    for keys in bands:
        _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
        shared |= count[place] > 1
    return shared
