"""What scenes have come to: as a table, as JSON, and whether all that must be zero is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from music_ray.progress import duration
from tests.chaos.scene import Played


def problems(played: Played) -> list[str]:
    """What is not as it must be, in words."""
    found = [f"{played.name}: {name} {number}" for name, number in played.zeros.items() if number]
    return found + [f"{played.name}: the driver ended by itself, {end}" for end in played.unasked_ends]


def recoveries(played: Played) -> dict[str, dict[str, Any]]:
    """Seconds from a loss to new work, by kind: how many, how many were followed by work, median, max."""
    by_kind: dict[str, dict[str, Any]] = {}
    for kind in sorted({one.kind for one in played.incidents}):
        ofkind = [one for one in played.incidents if one.kind == kind]
        seconds = [one.back - one.at for one in ofkind if one.back is not None]
        by_kind[kind] = {
            "lost": len(ofkind),
            "recovered": len(seconds),
            "median": round(statistics.median(seconds), 1) if seconds else None,
            "max": round(max(seconds), 1) if seconds else None,
        }
    return by_kind


def facts(played: Played) -> dict[str, Any]:
    """JSON values."""
    return {
        "name": played.name,
        "seconds": round(played.seconds, 1),
        "driver_starts": played.starts,
        "starts_refused_for_too_few_nodes": played.refused,
        "driver_ended_by_itself": played.unasked_ends,
        **played.zeros,
        "wasted_share": round(played.wasted_share, 4),
        "recovery_seconds": recoveries(played),
        **played.facts,
    }


def show(scenes: Sequence[Played]) -> None:
    """Prints two tables: what must be zero, and how long it took to be at work again."""
    zeros = Table("scene", "took", "faults", "driver starts", "must be zero", "wasted work")
    times = Table("scene", "what was lost", "times", "at work again", "median", "longest")
    for played in scenes:
        counts = ", ".join(f"{name} {number}" for name, number in played.zeros.items())
        zeros.add_row(
            *(played.name, duration(played.seconds), str(len(played.incidents)), str(played.starts)),
            *(counts, f"{played.wasted_share:.1%}"),
        )
        for kind, row in recoveries(played).items():
            numbers = ("–" if row[key] is None else f"{row[key]:.1f} s" for key in ("median", "max"))
            times.add_row(played.name, kind, str(row["lost"]), str(row["recovered"]), *numbers)
    console = Console(width=120)
    console.print(zeros)
    console.print(times)
