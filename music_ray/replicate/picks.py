"""Best-of-N in the miniature: what A1 picks against what A0 picks, by the exact judge (hypothesis H5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from music_ray.errors import InputError, StageError
from music_ray.evaluate.best_of_n.outcomes import VALUES
from music_ray.evaluate.best_of_n.run import OUTCOMES, run_best_of_n
from music_ray.evaluate.stats import Interval
from music_ray.miniature.preferences import first_messages
from music_ray.replicate.claim import Finding, two_way_bootstrap
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.world import make
from music_ray.run import best_of_n_tools

CHECKER = "music_ray.miniature.check:share_right"
SLOPE = "slope a doubling"


def compare_picks(recipe: Recipe, first: Path, second: Path, seed: int) -> pa.Table:
    """What became of each prompt where the two models of a training seed pick, for every N and selection.

    Returns:
        a table with the columns id, selection, n and value: 1 where the first model's pick is better, 0 where
        the second's is, 0.5 where none is.

    Raises:
        MusicRayError: as `music-ray best-of-n`.
    """
    count = recipe.scale.best_of_n_prompts
    prompts = make(recipe.world / "best_of_n.parquet", lambda: first_messages("best_of_n", count))
    words = [f"best_of_n.prompts={prompts}", f"best_of_n.checker={CHECKER}", "best_of_n.repeat=0"]
    words.append(recipe.natural_sampling)
    config = recipe.config("picks", "best-of-n", words)
    out = recipe.out / "best-of-n" / f"seed-{seed}"
    result = run_best_of_n(config, [str(first), str(second)], str(out), best_of_n_tools())
    digests = (one["digest"] for one in result["models"])
    return values_of(pq.read_table(out / OUTCOMES), *digests)


def values_of(outcomes: pa.Table, first: str, second: str) -> pa.Table:
    """The comparison of two pickers by the checker, from best-of-N's outcomes.parquet."""
    is_wanted = (
        (pc.field("first") == first) & (pc.field("second") == second) & (pc.field("judged_by") == "checker")
    )
    rows = outcomes.filter(is_wanted)
    values = [VALUES.get(one) for one in rows["outcome"].to_pylist()]
    return rows.select(["id", "selection", "n"]).append_column("value", pa.array(values, pa.float64()))


WinRates = dict[str, dict[str, np.ndarray]]
"""By selection: what became of each prompt, [s, n], for each N ("N = 2"), and its slope over N."""


def win_rates(tables: Sequence[pa.Table]) -> WinRates:
    """By selection: the outcomes of each N, and how they change with each doubling of N.

    A prompt that the checker can't judge for every N, seed and selection is left out.

    Args:
        tables: of compare_picks, one a training seed.

    Raises:
        StageError: no prompt is left.
        InputError: the tables are of other N or selections.
    """
    found: dict[tuple[str, int], list[dict[int, float]]] = {}
    for table in tables:
        of_table: dict[tuple[str, int], dict[int, float]] = {}
        for row in table.to_pylist():
            if row["value"] is not None:
                of_table.setdefault((row["selection"], row["n"]), {})[row["id"]] = row["value"]
        for key, by_id in of_table.items():
            found.setdefault(key, []).append(by_id)
    if not found:
        raise StageError("best-of-N compared A1 and A0 on no prompt")
    if any(len(seeds) != len(tables) for seeds in found.values()):
        all_of_them = ", ".join(f"{selection} N = {n}" for selection, n in sorted(found))
        raise InputError(
            "the picks of the training seeds are not all of the same selections and N "
            f"({all_of_them}): remove outcomes/picks-*.parquet, and they are compared again"
        )
    common = sorted(set.intersection(*(set(by_id) for seeds in found.values() for by_id in seeds)))
    if not common:
        raise StageError(
            "best-of-N has no prompt that every training seed, N and selection could be judged on"
        )
    values = {
        key: np.array([[by_id[one] for one in common] for by_id in seeds]) for key, seeds in found.items()
    }  # [s, n] each
    result: WinRates = {}
    for selection in sorted({key[0] for key in values}):
        sizes = sorted(n for name, n in values if name == selection)
        by_n = {n: values[selection, n] for n in sizes}
        result[selection] = {f"N = {n}": by_n[n] for n in sizes}
        if len(sizes) > 1:
            result[selection][SLOPE] = _slopes(by_n)
    return result


def intervals(found: WinRates) -> dict[str, dict[str, Interval]]:
    """The means of win_rates, with intervals over training seed × prompt."""
    return {
        selection: {
            name: two_way_bootstrap(values, np.arange(values.shape[1])) for name, values in by_n.items()
        }
        for selection, by_n in found.items()
    }


def _slopes(by_n: dict[int, np.ndarray]) -> np.ndarray:
    """Least-squares slope of each prompt's values over log2 N, [s, n]: their mean is the mean's slope."""
    doublings = np.log2(list(by_n))
    centred = doublings - doublings.mean()
    return np.tensordot(centred / (centred @ centred), np.stack(list(by_n.values())), axes=1)


def picks_finding(found: WinRates) -> Finding:
    """H5: the win rate over the other model is above one half for every N, and grows with N.

    It is about conversations picked as a whole: a reply picked by itself is a final turn. The slope's 95%
    interval must lie above 0, which is stricter than a one-sided test at 5%.
    """
    estimates = intervals({"whole": found["whole"]})["whole"]
    by_seed = {name: values.mean(axis=1).tolist() for name, values in found["whole"].items()}
    bounds = {name: 0.0 if name == SLOPE else 0.5 for name in estimates}
    holds = all(one.low > bounds[name] for name, one in estimates.items())
    refuted = any(one.high < bounds[name] for name, one in estimates.items())
    statement = "A1's picks win over A0's for N = 2, 4, 8, more with larger N"
    return Finding("H5", statement, estimates, holds, refuted, by_seed)
