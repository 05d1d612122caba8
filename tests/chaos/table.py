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
    found = [f"{name} {number}" for name, number in played.zeros.items() if number]
    found += [f"the driver ended by itself, {end}" for end in played.unasked_ends]
    # A scene that is over before a third of its faults has shown too little.
    if 3 * (played.planned - len(played.incidents)) > played.planned:
        found.append(f"only {struck(played)}")
    for kind, row in recoveries(played).items():
        if row["recovered"] < row["lost"]:
            found.append(f"{kind}: at work again after {row['recovered']} of {row['lost']} losses")
    return [f"{played.name}: {one}" for one in found]


def struck(played: Played) -> str:
    """How much of the schedule has happened."""
    return f"{len(played.incidents)} of {played.planned} faults struck"


def recoveries(played: Played) -> dict[str, dict[str, Any]]:
    """Seconds from a loss to new work, by kind: how many losses, after how many there was work again, for how
    many of these the scene's end stands for it (at_the_end), median, max."""
    by_kind: dict[str, dict[str, Any]] = {}
    for kind in sorted({one.kind for one in played.incidents}):
        ofkind = [one for one in played.incidents if one.kind == kind]
        seconds = [one.back - one.at for one in ofkind if one.back is not None]
        by_kind[kind] = {
            "lost": len(ofkind),
            "recovered": len(seconds),
            "at_the_end": sum(one.is_back_at_end for one in ofkind),
            "median": round(statistics.median(seconds), 1) if seconds else None,
            "max": round(max(seconds), 1) if seconds else None,
        }
    return by_kind


def facts(played: Played) -> dict[str, Any]:
    """JSON values."""
    return {
        "name": played.name,
        "faults_planned": played.planned,
        "faults_struck": len(played.incidents),
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
    zeros = Table("scene", "took", "faults struck", "driver starts", "must be zero", "wasted work")
    times = Table(
        "scene", "what was lost", "times", "at work again", "of these at the end", "median", "longest"
    )
    for played in scenes:
        counts = ", ".join(f"{name} {number}" for name, number in played.zeros.items())
        zeros.add_row(
            *(played.name, duration(played.seconds), f"{len(played.incidents)} of {played.planned}"),
            *(str(played.starts), counts, f"{played.wasted_share:.1%}"),
        )
        for kind, row in recoveries(played).items():
            numbers = ("–" if row[key] is None else f"{row[key]:.1f} s" for key in ("median", "max"))
            counted = (str(row[key]) for key in ("lost", "recovered", "at_the_end"))
            times.add_row(played.name, kind, *counted, *numbers)
    console = Console(width=120)
    console.print(zeros)
    console.print(times)
