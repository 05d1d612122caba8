"""The plan in the terminal: a table for people, JSON for machines."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from music_ray.planning.plan import Plan, Quantity

_LABELS = {
    "calls.assistant": "calls of the assistant",
    "calls.user": "calls of the user simulator",
    "calls.contrast": "calls that write contrasts",
    "calls": "calls, both orders of each pair",
    "prompt_tokens": "prompt tokens",
    "cached_tokens": "of these from the prefix cache",
    "completion_tokens": "completion tokens",
    "kv_gib": "key-value memory",
    "memory": "memory, at most",
    "memory_parameters": "memory: parameters",
    "memory_gradients": "memory: gradients",
    "memory_optimizer": "memory: optimizer",
    "memory_activations": "memory: activations",
    "memory_working": "memory: gathered weights, buffers",
    "memory_libraries": "memory: libraries",
    "memory_host": "memory outside the GPU",
    "wall_hours": "hours",
    "gpu_hours": "GPU hours",
    "over_length_preferences": "pairs of D over train.max_tokens",
    "over_length_music": "MUSIC pairs over train.max_tokens",
    "passes_preferences": "passes over D",
    "passes_music": "passes over the MUSIC pairs",
    "preferences": "pairs of D",
    "music": "MUSIC pairs",
}


def print_plan(plan: Plan) -> None:
    """Prints the plan, its notes and its warnings."""
    seeds = f"{plan.num_seeds:,} seeds" + ("" if plan.seeds_are_known else " (their number is not known yet)")
    so_far = any(one.there is not None for one in plan.quantities.values())
    table = Table(title=f"Plan of {plan.name}: {seeds}", title_justify="left")
    table.add_column("stage", no_wrap=True)
    table.add_column("what")
    if so_far:
        table.add_column("so far", justify="right", no_wrap=True)
    table.add_column("at least", justify="right", no_wrap=True)
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("at most", justify="right", no_wrap=True)
    table.add_column("from", style="dim", ratio=1)
    last = ""
    for name, quantity in plan.quantities.items():
        stage, _, what = name.partition(".")
        if last and stage != last:
            table.add_section()
        table.add_row(*_cells(stage if stage != last else "", what, quantity, so_far=so_far))
        last = stage
    # A pipe or a file gets whole lines however narrow the terminal may be taken for.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(table)
    for note in plan.notes:
        console.print(Text(f"- {note}"))
    for warning in plan.warnings:
        console.print(Text(f"WARNING: {warning}", style="bold"))


def print_json(plan: Plan) -> None:
    """Prints the plan for machines."""
    sys.stdout.write(json.dumps(plan.to_json(), indent=2, ensure_ascii=False) + "\n")


def _cells(stage: str, what: str, quantity: Quantity, *, so_far: bool) -> list[Text]:
    label = _LABELS.get(what, what.replace("_", " "))
    unit = quantity.unit
    if unit and unit.split()[0].rstrip("s").lower() not in label.lower() and unit != "of its pairs":
        label = f"{label} ({unit})"
    has_bounds = not quantity.low == quantity.expected == quantity.high
    numbers = [number(quantity.there, unit)] if so_far else []
    numbers += [
        number(quantity.low if has_bounds else None, unit),
        number(quantity.expected, unit),
        number(quantity.high if has_bounds else None, unit),
    ]
    return [Text(cell) for cell in (stage, label, *numbers, quantity.basis)]


def number(value: float | None, unit: str = "") -> str:
    """A number with as many digits as matter; empty for None."""
    if value is None:
        return ""
    if unit == "of its pairs":
        return f"{value:.1%}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}"


def one_line(plan: Plan) -> str:
    """What rollouts and judge will take, for a log: tokens, and hours and cost where they are known."""
    parts = [f"{plan.num_seeds:,} seeds"]
    for name, label in (
        ("generate.completion_tokens", "completion tokens"),
        ("generate.gpu_hours", "GPU hours"),
        ("generate.wall_hours", "hours"),
        ("generate.cost", plan.currency),
        ("judge.calls", "calls of the judge"),
        ("judge.cost", f"{plan.currency} for the judge"),
    ):
        if quantity := plan.quantities.get(name):
            low, expected, high = (f"{number:,.{0 if number >= 100 else 2}f}" for number in quantity.bounds)
            parts.append(f"{expected} {label} ({low} to {high})")
    return ", ".join([*parts, *plan.warnings]) + "; more by `music-ray plan`"
