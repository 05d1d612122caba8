"""H1 and H2 on the pairs of S2 whose rejected side has one wrong reply only. Looked at afterwards.

    python docs/explanation/miniature-full/one_wrong_reply.py

Over the training seeds that A0, A1 and A2 all have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from music_ray.miniature.check import wrong_turns
from music_ray.replicate.claim import two_way_bootstrap
from music_ray.replicate.scoring import suite_facts

HERE = Path(__file__).parent
COMPARED = ("A0", "A1", "A2")


def outcome(arm: str, seed: int) -> Path:
    """The file that says which pairs an arm gets right."""
    return HERE / "outcomes" / f"{arm}-{seed}.parquet"


def right_in_s2(arm: str) -> np.ndarray:
    """[s, n] bool: whether training seed s of an arm gets pair n of S2 right; seeds that all arms have."""
    seeds = [seed for seed in range(5) if all(outcome(one, seed).exists() for one in COMPARED)]
    tables = [pq.read_table(outcome(arm, seed)).to_pandas() for seed in seeds]
    return np.stack([table.right[table.suite == "S2"].to_numpy() for table in tables])


suite = HERE / "world" / "S2.parquet"
rows = pq.read_table(suite, columns=["rejected"]).to_pylist()
single = np.array([len(wrong_turns(row["rejected"])) == 1 for row in rows])
clusters = np.unique(suite_facts(suite).clusters[single], return_inverse=True)[1]
right = {arm: right_in_s2(arm)[:, single].astype(float) for arm in COMPARED}
sys.stdout.write(f"{int(single.sum())} of {len(single)} pairs, {len(right['A0'])} training seeds\n")
for other in ("A0", "A2"):
    found = two_way_bootstrap(right["A1"] - right[other], clusters)
    sys.stdout.write(f"A1 − {other}: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]\n")
