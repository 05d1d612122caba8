"""The numbers of best-of-N from picks and verdicts: what results.json holds.

Assembles; how a number comes about is the business of outcomes, win_rates and reliability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.evaluate.best_of_n.outcomes import (
    UNANSWERED,
    JudgedBy,
    Outcomes,
    by_checker,
    by_verdicts,
    outcomes,
)
from music_ray.evaluate.best_of_n.questions import Comparison, Row, comparisons
from music_ray.evaluate.best_of_n.reliability import agreement, reliability
from music_ray.evaluate.best_of_n.win_rates import mean_checked, trend, win_rates
from music_ray.evaluate.stats import Resampling
from music_ray.judge.rows import Verdicts
from music_ray.rundir import RunDir


@dataclass(frozen=True)
class Judged:
    """A judge's answers."""

    verdicts: Verdicts
    asked: list[int]
    """Ids of the questions, each once."""
    twice: list[int]
    """Those that were asked a second time."""
    engine: dict[str, str]
    """kind and model."""
    why_once: str = ""
    """Why none was asked a second time; empty where some were to be."""


def outcomes_by_judge(
    run: RunDir, rows: Sequence[Row], judged: dict[str, Judged], models: list[str]
) -> dict[str, list[Outcomes]]:
    """What became of every row in every comparison, by who judges.

    Args:
        rows: those with status ok.
        judged: by the name of the judge.
        models: digests, in the order of the command.
    """
    section = run.config.best_of_n
    asked = comparisons(section, models)
    return {
        name: outcomes(rows, asked, judged_by)
        for name, judged_by in _who_judges(judged, section.checker).items()
    }


def summarise(
    run: RunDir, rows: Sequence[Row], judged: dict[str, Judged], found: dict[str, list[Outcomes]]
) -> dict[str, Any]:
    """Everything that picks and verdicts come to.

    Args:
        rows: those with status ok.
        judged: by the name of the judge.
        found: outcomes_by_judge of the same rows.

    Returns:
        settings; comparisons, each with its pickers, selection, n and judged_by; trends over N; judges and
        their agreement; checked, how good each picker's conversations are by the checker; unscored, how
        many candidates a picker could not pick, of those pickers that have such.
    """
    config = run.config
    section, evaluate = config.best_of_n, config.evaluate
    resampling = Resampling(evaluate.bootstrap_samples, evaluate.confidence, config.seed)
    result: dict[str, Any] = {
        "settings": {
            "turns": section.turns,
            "n": section.n,
            "selection": section.selections,
            "checker": section.checker,
            "seed": config.seed,
            "confidence": evaluate.confidence,
            "bootstrap_samples": evaluate.bootstrap_samples,
        },
        "comparisons": [
            {**asdict(one.comparison), "judged_by": name, **win_rates(one, resampling)}
            for name, all_ in found.items()
            for one in all_
        ],
        "trends": [
            {"judged_by": name, **one} for name, all_ in found.items() for one in _trends(all_, resampling)
        ],
        "judges": {
            name: {**one.engine, **reliability(one.verdicts, one.asked, one.twice, one.why_once)}
            for name, one in judged.items()
        },
        "judges_agree": None,
        "checked": _checked(rows, resampling) if section.checker else [],
        "unscored": _unscored(rows),
    }
    if len(judged) == 2:
        first, second = judged.values()
        result["judges_agree"] = agreement(first.verdicts, second.verdicts, first.asked)
    return result


def outcome_table(rows: Sequence[Row], found: dict[str, list[Outcomes]]) -> pa.Table:
    """One line a row, comparison and judge, for statistics of one's own: id, pickers, what came of it."""
    ids = [row["id"] for row in rows]
    parts = [
        pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                **{
                    name: pa.array([value] * len(ids), kind)
                    for name, value, kind in (
                        ("first", one.comparison.first, pa.string()),
                        ("second", one.comparison.second, pa.string()),
                        ("selection", one.comparison.selection, pa.string()),
                        ("n", one.comparison.n, pa.int32()),
                        ("judged_by", name_of_judge, pa.string()),
                    )
                },
                "outcome": pa.array(one.names.tolist(), pa.string()),
            }
        )
        for name_of_judge, all_ in found.items()
        for one in all_
    ]
    return pa.concat_tables(parts)


def _who_judges(judged: dict[str, Judged], checker: str | None) -> dict[str, JudgedBy]:
    who = {name: by_verdicts(one.verdicts) for name, one in judged.items()}
    if checker:
        who["checker"] = by_checker
    return who or {"nobody": lambda question, first, second: UNANSWERED}


def _trends(found: list[Outcomes], resampling: Resampling) -> list[dict[str, Any]]:
    def pickers(one: Outcomes) -> tuple[str, str, str]:
        return _who(one.comparison)

    trends = []
    for (first, second, selection), group in groupby(found, key=pickers):
        by_n = list(group)
        if len(by_n) > 1:
            who = {"first": first, "second": second, "selection": selection}
            trends.append({**who, **trend(by_n, resampling)})
    return trends


def _who(comparison: Comparison) -> tuple[str, str, str]:
    return comparison.first, comparison.second, comparison.selection


def _checked(rows: Sequence[Row], resampling: Resampling) -> list[dict[str, Any]]:
    values: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        for pick in row["picks"]:
            key = pick["picker"], pick["selection"], pick["n"]
            values.setdefault(key, []).append(np.nan if pick["checked"] is None else pick["checked"])
    return [
        {"picker": picker, "selection": selection, "n": n, **mean_checked(np.array(found), resampling)}
        for (picker, selection, n), found in values.items()
    ]


def _unscored(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Candidates without a score, by who could not pick them; rows of older versions do not say it."""
    sums: dict[tuple[str, str, int], Counter[str]] = {}
    for row in rows:
        for pick in row["picks"]:
            counts = sums.setdefault((pick["picker"], pick["selection"], pick["n"]), Counter())
            counts.update({name: pick.get(name) or 0 for name in ("num_candidates", "num_unscored")})
    return [
        {"picker": picker, "selection": selection, "n": n, **counts}
        for (picker, selection, n), counts in sums.items()
        if counts["num_unscored"]
    ]
