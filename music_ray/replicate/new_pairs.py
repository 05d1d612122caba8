"""S2 on first messages that no earlier run had.

The first messages of S2 are the beginning of one stream, so those of a small scale come again in a larger
one. The hypotheses had been looked at on them when the larger one was made (docs/explanation/miniature.md):
what is new of S2 is told apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from music_ray.replicate.claim import Right, as_json, two_way_bootstrap
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import SHORT
from music_ray.replicate.world import OPENINGS, suite_file

_COMPARED = (("A1", "A0"), ("A1", "A2"))


def is_new(suite: Path, openings: Path, num_before: int) -> np.ndarray:
    """Whether a pair's first message is not among so many at the beginning of the openings, [n] bool."""
    told = pq.read_table(openings, columns=["chosen"]).slice(0, num_before)["chosen"].to_pylist()
    before = {messages[0]["content"] for messages in told}
    pairs = pq.read_table(suite, columns=["chosen"])["chosen"].to_pylist()
    return np.array([messages[0]["content"] not in before for messages in pairs])


def new_first_messages(recipe: Recipe, right: Right, clusters: np.ndarray) -> dict[str, Any] | None:
    """H1 and H2 on the new pairs of S2; None where all are new, or the arms for it are not there."""
    there = [arms for arms in _COMPARED if set(arms) <= right.keys()]
    if recipe.scale.samples <= SHORT.samples or not there:
        return None
    chosen = is_new(suite_file(recipe.world, "S2"), recipe.world / OPENINGS, SHORT.samples)
    _, of_chosen = np.unique(clusters[chosen], return_inverse=True)
    found = {}
    for one, other in there:
        values = right[one]["S2"].astype(float) - right[other]["S2"].astype(float)
        found[f"{one} − {other}"] = as_json(two_way_bootstrap(values[:, chosen], of_chosen))
    return {"num_pairs": int(chosen.sum()), "differences": found}
