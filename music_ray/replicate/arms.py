"""The pairs that stand in D_MUSIC's place in each arm (docs/explanation/miniature.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from music_ray.errors import StageError
from music_ray.miniature.language import tokens
from music_ray.miniature.natural import natural_preferences
from music_ray.miniature.preferences import foreign_rows, write_rows
from music_ray.miniature.split_gate import first_foreign_list
from music_ray.progress import say
from music_ray.replicate.rollouts import PLAIN_RUNS, VARIANTS, Recipe, pairs_by_seed, rollouts, samples
from music_ray.replicate.world import MORE, NUM_TURNS
from music_ray.schema import Message, content_id, unit_interval

Row = dict[str, Any]
SHARES = {"share-half": 2, "share-quarter": 4}
"""Ablations: of the pairs in D_MUSIC's place one in so many is MUSIC's, the others are A0's."""


def write_arms(recipe: Recipe) -> dict[str, Path]:
    """Writes the pairs of every arm of the scale, as many in each; returns the files.

    Raises:
        MusicRayError: as the stages that roll out; StageError where an arm has no pair.
    """
    folder = recipe.out / "arms-data"
    files = {arm: folder / f"{arm}.parquet" for arm in recipe.scale.arms}
    if all(file.exists() for file in files.values()):
        return files
    found = {arm: _rows_of(recipe, arm) for arm in recipe.scale.arms}
    count = min(recipe.scale.music, *map(len, found.values()))
    if not count:
        empty = [arm for arm, rows in found.items() if not rows]
        raise StageError(f"no pair for {', '.join(empty)}: read {recipe.out}/rollouts/*/manifest.json")
    folder.mkdir(parents=True, exist_ok=True)
    for arm, rows in found.items():
        if len(rows) < recipe.scale.music:
            say(f"arms: {arm} has {len(rows)} pairs and not {recipe.scale.music}; all arms get {count}")
        partial = files[arm].with_name(f".partial-{arm}.parquet")
        write_rows([row | {"source": arm} for row in rows[:count]], partial)
        partial.rename(files[arm])
    say(f"arms: {count} pairs each of {', '.join(f'{arm} {len(rows)}' for arm, rows in found.items())}")
    return files


def tokens_a_pair(files: Mapping[str, Sequence[Path]]) -> dict[str, float]:
    """Mean tokens of both sides of the pairs in each arm's files, the chat template's included."""
    totals = {}  # [tokens, pairs] of each file; arms share some
    for file in {one for of_arm in files.values() for one in of_arm}:
        rows = pq.read_table(file, columns=["chosen", "rejected"]).to_pylist()
        totals[file] = np.array([sum(_num_tokens(side) for row in rows for side in row.values()), len(rows)])
    sums = {arm: np.sum([totals[file] for file in of_arm], axis=0) for arm, of_arm in files.items()}
    return {arm: round(float(tokens / pairs), 2) for arm, (tokens, pairs) in sums.items()}


def _num_tokens(messages: Iterable[Message]) -> int:
    return 1 + sum(len(tokens(message["content"])) + 2 for message in messages)


def _rows_of(recipe: Recipe, arm: str) -> list[Row]:
    if arm in VARIANTS:
        found = pairs_by_seed(rollouts(recipe, arm))
        return [_row(f"seed-{seed}", found[seed]) for seed in sorted(found)]
    if arm in SHARES:
        return _diluted(_music(recipe), _baseline(recipe), SHARES[arm])
    return _MAKERS[arm](recipe)


def _diluted(music: Sequence[Row], other: Sequence[Row], one_in: int) -> list[Row]:
    """MUSIC's pairs in every so many places, pairs of D in the others; any beginning has that share."""
    count = min(len(music), len(other))
    return [(other if place % one_in else music)[place] for place in range(count)]


def _baseline(recipe: Recipe) -> list[Row]:
    """A0: more of D."""
    return pq.read_table(recipe.world / MORE, columns=["id", "chosen", "rejected"]).to_pylist()


def _common(recipe: Recipe, name: str) -> list[Row]:
    """Pairs of a run, of the seeds that gave one in both runs, if the scale has both arms."""
    wanted = ["music", "last"] if "A2" in recipe.scale.arms else ["music"]
    found = {one: pairs_by_seed(rollouts(recipe, one)) for one in wanted}
    common = set.intersection(*(set(pairs) for pairs in found.values()))
    # The same ids in every arm: the order of training goes by them.
    return [_row(f"seed-{seed}", found[name][seed]) for seed in sorted(common)]


def _music(recipe: Recipe) -> list[Row]:
    """A1."""
    return _common(recipe, "music")


def _last(recipe: Recipe) -> list[Row]:
    """A2."""
    return _common(recipe, "last")


def _flipped(recipe: Recipe) -> list[Row]:
    """A3."""
    return [flipped(row) if unit_interval("flip", row["id"]) < 0.5 else row for row in _music(recipe)]


def flipped(row: Row) -> Row:
    """A pair with its label exchanged."""
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


def _placebo(recipe: Recipe) -> list[Row]:
    """A4: the order of two samples of a seed says which is chosen, and a hash exchanges half of them."""
    one, other = (dict(_for_training(recipe, name)) for name in ("music", "plain-2"))
    rows = [
        {"id": f"plain-{seed}", "chosen": one[seed], "rejected": other[seed]}
        for seed in sorted(one.keys() & other.keys())
        if one[seed] != other[seed]
    ]
    return [flipped(row) if unit_interval("label", row["id"]) < 0.5 else row for row in rows]


def _for_training(recipe: Recipe, name: str) -> Iterator[tuple[int, list[Message]]]:
    """Samples of a run that hold no list of another split; the gate of the pairs stage looks for the same."""
    for seed, messages in samples(rollouts(recipe, name)):
        if not first_foreign_list(messages, "train"):
            yield seed, messages


def _foreign(recipe: Recipe) -> list[Row]:
    """A5."""
    return foreign_rows(recipe.scale.music, NUM_TURNS)


def _judged(recipe: Recipe) -> list[Row]:
    """A6."""
    said = [one for name in ("music", *PLAIN_RUNS) for _, one in _for_training(recipe, name)]
    rows = natural_preferences(said)
    return sorted(rows, key=lambda row: content_id(["order", row["id"]]))


def _row(row_id: str, pair: Row) -> Row:
    return {"id": row_id, "chosen": pair["chosen"], "rejected": pair["rejected"]}


_MAKERS: dict[str, Callable[[Recipe], list[Row]]] = {
    "A0": _baseline, "A1": _music, "A2": _last, "A3": _flipped, "A4": _placebo, "A5": _foreign, "A6": _judged
}  # fmt: skip
