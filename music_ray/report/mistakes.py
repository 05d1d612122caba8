"""The worst mistakes to read: the pairs whose rejected side a model likes most beyond the chosen one.

Picks pairs by their scores and lays them out; does not know where they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from music_ray.report.any_model import AnyModel, SetResult
from music_ray.report.evaluation import TRAINED, Suite
from music_ray.report.reading import Reading, read_pair
from music_ray.rundir import RunDir
from music_ray.schema import (
    PreferencePair,
    content_id,
    count_user_turns,
    first_difference,
    pair_from_row,
)

OF_A_RUN, OF_ANY_MODEL = 5, 3
"""Mistakes shown of a suite of the run, and of each model on a pair set."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The worst of one model on one set of pairs."""

    of: str
    """Which pairs."""
    model: str
    num_wrong: int
    """Pairs whose rejected side scores higher; ties are none of them."""
    num_pairs: int
    """Those with both scores."""
    readings: list[Reading]


def worst(margins: Sequence[float], limit: int) -> list[int]:
    """Places of the most negative margins, the worst first; equal ones in their order."""
    wrong = [at for at, margin in enumerate(margins) if math.isfinite(margin) and margin < 0]
    return sorted(wrong, key=lambda at: (margins[at], at))[:limit]


def of_suite(run: RunDir, suite: Suite) -> Mistakes | None:
    """Those of the run's own model on a held-out suite; None without its scores or its pairs.

    Raises:
        InputError: the suite's file is damaged.
    """
    scores = suite.scores.get(TRAINED)
    if scores is None or not run.exists("mix", "held_out", f"{suite.name}.parquet"):
        return None
    at = worst(scores.margins, OF_A_RUN)
    wanted = {scores.ids[one] for one in at}
    path = run.path("mix", "held_out", f"{suite.name}.parquet")
    pairs = {row["id"]: row for row in _rows(run, path) if row["id"] in wanted}
    there = [one for one in at if scores.ids[one] in pairs]
    return Mistakes(
        of=suite.label,
        model=TRAINED,
        num_wrong=sum(margin < 0 for margin in scores.margins),
        num_pairs=len(scores.ids),
        readings=[
            _reading(
                pair_from_row(pairs[scores.ids[one]]), [(TRAINED, scores.chosen[one], scores.rejected[one])]
            )
            for one in there
        ],
    )


def of_set(found: AnyModel, pairs: SetResult) -> list[Mistakes]:
    """Those of every model on a pair set of an evaluation; none where the scored pairs are gone.

    Raises:
        InputError: the file of pairs is damaged.
    """
    folder, file = found.place.folder, f"pairs-{pairs.content}.parquet"
    if not pairs.scores or not folder.exists(pairs.name, file):
        return []
    margins = {mark: [one - other for one, other in scores] for mark, scores in pairs.scores.items()}
    places = {mark: worst(each, OF_ANY_MODEL) for mark, each in margins.items()}
    wanted = {at for each in places.values() for at in each}
    rows = enumerate(_rows(folder, folder.path(pairs.name, file)))
    held = {at: _pair(row, pairs.name) for at, row in rows if at in wanted}
    return [
        Mistakes(
            of=pairs.name,
            model=mark,
            num_wrong=sum(margin < 0 for margin in margins[mark]),
            num_pairs=sum(map(math.isfinite, margins[mark])),
            readings=[
                _reading(held[at], [(one, *scores[at]) for one, scores in pairs.scores.items()])
                for at in places[mark]
                if at in held
            ],
        )
        for mark in pairs.scores
    ]


def _rows(run: RunDir, path: str) -> Iterator[dict[str, Any]]:
    with run.open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _pair(row: dict[str, Any], source: str) -> PreferencePair:
    chosen, rejected = row["chosen"], row["rejected"]
    return PreferencePair(
        id=str(row["id"]),
        source=source,
        origin="D",
        conversation=content_id(chosen),
        num_turns=count_user_turns(chosen),
        branch_turn=first_difference(chosen, rejected),
        chosen=chosen,
        rejected=rejected,
    )


def _reading(pair: PreferencePair, scores: list[tuple[str, float, float]]) -> Reading:
    reading = read_pair(pair)
    reading.scores.extend(scores)
    return reading
