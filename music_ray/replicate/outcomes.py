"""outcomes/: what became of the arms of each training seed, in files of some kilobytes.

    ARM-SEED.parquet     which pairs of the suites this reward model gets right
    picks-SEED.parquet   what A1 picked against what A0 picked

What is there is neither trained nor scored again. So models may be removed, a replication may go on on
another machine, and the outcomes can be published and read again without any of the models. Each file says
what its arms were trained on and scored with, so that outcomes of other data are not taken for these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from music_ray.errors import InputError
from music_ray.replicate.scoring import Suites
from music_ray.schema import content_id

Outcome = dict[str, np.ndarray]
"""For each suite whether each pair is right, [n] bool in the order of the suite's file."""
_MADE_FROM = b"music_ray.made_from"
"""Key of the files' Parquet metadata."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The folder of outcomes of a replication."""

    folder: Path
    suites: Suites
    data: Mapping[str, int]
    """Digests of what the arms are trained on, by arm, and of the suites."""

    @classmethod
    def of(cls, out: Path, suites: Suites, arms: Mapping[str, Iterable[Path]]) -> Outcomes:
        """Those of a replication's folder.

        Args:
            arms: the files of pairs that each arm is trained on.
        """
        digests = {file: _digest(file) for file in {one for files in arms.values() for one in files}}
        data = {arm: content_id(sorted(digests[file] for file in files)) for arm, files in arms.items()}
        scored = content_id({name: _digest(file) for name, file in suites.files.items()})
        return cls(out / "outcomes", suites, data | {"suites": scored})

    def check(self) -> None:
        """Reads all that are there, before anything is trained.

        Raises:
            InputError: as `read`, or one is damaged.
        """
        for file in sorted(self.folder.glob("*.parquet")):
            arm = file.stem.rpartition("-")[0]
            if arm == "picks":
                self._read(file, ["A0", "A1"])
            elif arm in self.data:
                self._read(file, [arm, "suites"])

    def has(self, arm: str, seed: int) -> bool:
        """Whether a trained arm's outcome is there."""
        return self._of_arm(arm, seed).exists()

    def complete(self, arms: Iterable[str], seed: int) -> bool:
        """Whether the outcomes of all these arms are there, of one training seed."""
        return all(self.has(arm, seed) for arm in arms)

    def has_picks(self, seed: int) -> bool:
        """Whether best-of-N of a training seed is there."""
        return self._of_picks(seed).exists()

    def write(self, arm: str, seed: int, right: Outcome) -> None:
        """Writes a trained arm's outcome, whole or not at all."""
        suites = np.repeat(list(right), [len(values) for values in right.values()])
        # Without ids, seventy times as large: the digest of the suites stands for the order of their pairs.
        table = pa.table({"suite": suites, "right": np.concatenate(list(right.values()))})
        self._write(self._of_arm(arm, seed), table, [arm, "suites"])

    def read(self, arm: str, seed: int) -> Outcome:
        """What `write` wrote.

        Raises:
            InputError: it was made from other pairs or suites than the folder holds.
        """
        table = self._read(self._of_arm(arm, seed), [arm, "suites"])
        suites, right = (np.array(table[name].to_pylist()) for name in ("suite", "right"))
        return {suite: right[suites == suite] for suite in self.suites.facts}

    def write_picks(self, seed: int, picks: pa.Table) -> None:
        """Writes what became of best-of-N, whole or not at all."""
        self._write(self._of_picks(seed), picks, ["A0", "A1"])

    def read_picks(self, seed: int) -> pa.Table:
        """What `write_picks` wrote.

        Raises:
            InputError: as `read`.
        """
        return self._read(self._of_picks(seed), ["A0", "A1"])

    def _of_arm(self, arm: str, seed: int) -> Path:
        return self.folder / f"{arm}-{seed}.parquet"

    def _of_picks(self, seed: int) -> Path:
        return self.folder / f"picks-{seed}.parquet"

    def _write(self, file: Path, table: pa.Table, names: Iterable[str]) -> None:
        made_from = json.dumps({name: self.data[name] for name in names}).encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".partial-{file.name}")
        pq.write_table(table.replace_schema_metadata({_MADE_FROM: made_from}), partial, compression="zstd")
        partial.rename(file)

    def _read(self, file: Path, names: Iterable[str]) -> pa.Table:
        try:
            table = pq.read_table(file)
        except pa.ArrowException as error:
            said = " ".join(str(error).split())
            raise InputError(
                f"{file} is damaged ({said}): remove it, and what it was made from is made again"
            ) from error
        made_from = json.loads((table.schema.metadata or {}).get(_MADE_FROM, b"{}"))
        if other := [name for name in names if made_from.get(name) != self.data[name]]:
            what = " and ".join(
                "the suites" if name == "suites" else f"the pairs of {name}" for name in other
            )
            raise InputError(
                f"{file}: {what} are others than those in this folder: remove it, or put their files back"
            )
        return table


def _digest(file: Path) -> int:
    """Of the pairs in a file, however it is compressed."""
    return content_id(pq.read_table(file, columns=["id", "chosen", "rejected"]).to_pylist())
