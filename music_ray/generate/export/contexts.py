"""How many messages of a conversation are the seed's own, for a million seeds in 16 MB."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from music_ray.generate.export.formats import ContextLength
from music_ray.rundir import RunDir


def context_lengths(run: RunDir) -> ContextLength:
    """Looks lengths up by the seed's id, in what seeds/contexts holds now."""
    ids, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path in run.parquet_files("seeds", "contexts"):
        with run.open_parquet(path) as file:
            table = file.read(columns=["id", "messages.list.element.role"])
        ids.append(table["id"].to_numpy())
        lengths.append(pc.list_value_length(table["messages"]).to_numpy())
    order = np.argsort(all_ids := np.concatenate(ids))
    sorted_ids, sorted_lengths = all_ids[order], np.concatenate(lengths)[order]

    def look_up(seed_id: int) -> int | None:
        place = int(np.searchsorted(sorted_ids, seed_id))
        found = place < len(sorted_ids) and int(sorted_ids[place]) == seed_id
        return int(sorted_lengths[place]) if found else None

    return look_up
