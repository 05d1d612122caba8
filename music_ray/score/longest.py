"""What another engine.max_model_len means for a folder of scores: by the lengths of what is in it.

A score does not depend on that bound, but whether there is one does. So after a change either the rows are
those that a new folder would have, or the command is refused.
"""

from __future__ import annotations

import numpy as np

from music_ray.errors import RunFolderError
from music_ray.jobs.shards import ShardIndex, read_batches
from music_ray.rundir import RunDir

OVER_LENGTH = "over_length"
"""The reason of a conversation that is longer than engine.max_model_len."""


def check_longest(run: RunDir, index: ShardIndex, former: int | None) -> None:
    """Refuses a bound below the length of a conversation that has a score.

    Args:
        former: engine.max_model_len of the last start, where that is known.

    Raises:
        RunFolderError: a new folder would have no score of that conversation.
    """
    now, longest = run.config.engine.max_model_len, 0
    for batch in read_batches(run, index, ["status", "num_tokens"]):
        scored = batch["status"].to_numpy(zero_copy_only=False) == "ok"
        longest = max(longest, int(batch["num_tokens"].to_numpy()[scored].max(initial=0)))
    if longest > now:
        remedy = f"set engine.max_model_len={former}" if former else f"set it to {longest} or more"
        raise RunFolderError(
            f"{run.display()} holds scores of conversations of up to {longest} tokens"
            f"{f', made with engine.max_model_len={former}' if former else ''}; now engine.max_model_len is "
            f"{now}: {remedy}, or name a new folder with --out"
        )


def no_longer_too_long(run: RunDir, index: ShardIndex) -> np.ndarray:
    """Sorted int64 ids of conversations that were too long once and are not for the present bound."""
    found: list[np.ndarray] = []
    errors = index.only(index.ids[index.is_error])
    for batch in read_batches(run, errors, ["id", "reason", "num_tokens"]):
        over = batch["reason"].to_numpy(zero_copy_only=False) == OVER_LENGTH
        fits = batch["num_tokens"].to_numpy() <= run.config.engine.max_model_len
        found.append(batch["id"].to_numpy()[over & fits])
    return np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
