"""Best-of-N in the miniature: what A1 picks against what A0 picks, by the exact judge (hypothesis H5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from music_ray.errors import StageError
from music_ray.evaluate.best_of_n.run import run_best_of_n
from music_ray.evaluate.stats import Interval
from music_ray.miniature.preferences import first_messages
from music_ray.replicate.claim import Finding
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.world import make
from music_ray.run import best_of_n_tools

CHECKER = "music_ray.miniature.check:share_right"


def compare_picks(recipe: Recipe, first: Path, second: Path) -> dict[str, Any]:
    """Win rates of the first model's picks over the second's and over random ones, for every N.

    Returns:
        comparisons and trends as results.json of `music-ray best-of-n` has them, pickers named first, second
        and random.

    Raises:
        MusicRayError: as `music-ray best-of-n`.
    """
    count = recipe.scale.best_of_n_prompts
    prompts = make(recipe.world / "best_of_n.parquet", lambda: first_messages("best_of_n", count))
    words = [f"best_of_n.prompts={prompts}", f"best_of_n.checker={CHECKER}", "best_of_n.repeat=0"]
    config = recipe.config("picks", "best-of-n", words)
    models = [str(first), str(second)]
    result = run_best_of_n(config, models, str(recipe.out / "best-of-n"), best_of_n_tools())
    names = {one["digest"]: name for one, name in zip(result["models"], ("first", "second"), strict=True)}
    return {
        part: [
            one | {side: names.get(one[side], one[side]) for side in ("first", "second")}
            for one in result[part]
            if one["judged_by"] == "checker"
        ]
        for part in ("comparisons", "trends")
    }


def picks_finding(found: dict[str, Any]) -> Finding:
    """H5: the win rate over the other model is above one half for every N, and grows with N.

    It is about conversations picked as a whole: a reply picked by itself is a final turn. The slope's 95%
    interval must lie above 0, which is stricter than a one-sided test at 5%.
    """
    models = {"first": "first", "second": "second", "selection": "whole"}

    def of_models(part: str) -> list[dict[str, Any]]:
        rows = [one for one in found[part] if all(one[key] == value for key, value in models.items())]
        if not rows:
            raise StageError(f"best-of-N has no {part} of A1 and A0 by whole conversation")
        return rows

    estimates = {
        f"N = {one['n']}": Interval(one["win_rate"], one["win_rate_low"], one["win_rate_high"])
        for one in of_models("comparisons")
    }
    [slope] = of_models("trends")
    holds = all(one.low > 0.5 for one in estimates.values()) and slope["slope_low"] > 0
    estimates["slope a doubling"] = Interval(slope["slope"], slope["slope_low"], slope["slope_high"])
    return Finding("H5", "A1's picks win over A0's for N = 2, 4, 8, more with larger N", estimates, holds)
