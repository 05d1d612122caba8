"""Pairs in the terminal: the shared beginning dimmed, then both branches side by side.

Generated text is shown as text: control characters are replaced (music_ray.visible) and nothing of it is
read as rich's markup, so a model can't recolour, clear or retitle the terminal of who reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from music_ray.errors import InputError
from music_ray.report.evaluation import read_evaluation
from music_ray.report.reading import (
    ACCEPTED,
    Reading,
    Turn,
    few_of_each_reason,
    first_by_hash,
    pair_ids,
    read_pairs,
    read_refused,
    refusals,
)
from music_ray.report.show import signed, words
from music_ray.rundir import RunDir
from music_ray.schema import Contrast, Message
from music_ray.visible import visible

SIDE_BY_SIDE_FROM = 100
"""Columns from which the branches stand side by side."""
_CHOSEN, _REJECTED, _ALTER = "green", "red", "magenta"


def inspect_run(
    run: RunDir,
    *,
    limit: int = 5,
    ids: Sequence[str] = (),
    refused: bool = False,
    console: Console | None = None,
) -> int:
    """Prints accepted pairs, or with `refused` rollouts that gave no pair; returns how many.

    Args:
        limit: at most this many, the first by a hash of their id; with `ids` it has no effect.
        ids: exactly these pairs (rollouts), in this order.

    Raises:
        InputError: nothing is there to show, or an id is unknown.
    """
    console = console or Console()
    readings, num_all = _refused(run, limit, ids) if refused else _accepted(run, limit, ids)
    for index, reading in enumerate(readings, start=1):
        console.print(_reading(reading, index, len(readings), console.width))
    what = "refused rollouts" if refused else "accepted pairs"
    console.print(Text(f"{len(readings)} of {num_all:,} {what} in {run.display()}", style="dim"))
    return len(readings)


def _accepted(run: RunDir, limit: int, ids: Sequence[str]) -> tuple[list[Reading], int]:
    known = pair_ids(run)
    if not known:
        raise InputError(f"{run.display('pairs')} holds no pairs: run `music-ray pairs` first")
    _check_ids(ids, known, f"{run.display('pairs')} holds no pair")
    evaluation = read_evaluation(run)
    readings = read_pairs(run, list(ids) or first_by_hash(known, limit))
    if evaluation is not None:
        readings = [replace(reading, scores=evaluation.score_of(reading.id)) for reading in readings]
    return readings, len(known)


def _refused(run: RunDir, limit: int, ids: Sequence[str]) -> tuple[list[Reading], int]:
    rows = refusals(run)
    if not rows:
        raise InputError(
            f"{run.display('pairs', 'gates.jsonl')} names no refused rollout: either every rollout gave a "
            "pair, or the pairs stage has not run"
        )
    by_id: dict[str, dict[str, Any]] = {str(row["id"]): row for row in rows}
    _check_ids(ids, list(by_id), f"{run.display('pairs', 'gates.jsonl')} names no rollout")
    chosen = [by_id[one] for one in ids] if ids else few_of_each_reason(rows, limit)
    return read_refused(run, chosen), len(rows)


def _check_ids(ids: Sequence[str], known: list[str], problem: str) -> None:
    for one in ids:
        if one not in known:
            raise InputError(f"{problem} with id {one!r}: take one from the report, such as {known[0]!r}")


# -- one pair --------------------------------------------------------------------------------------


def _reading(reading: Reading, index: int, number: int, width: int) -> RenderableType:
    kind = "Pair" if reading.reason == ACCEPTED else "Rollout"
    parts: list[RenderableType] = [
        Rule(Text(f"{kind} {index} of {number}"), style="default"),
        _facts(reading),
    ]
    parts += [_message(one, "dim") for one in reading.shared]
    for turn in reading.turns:
        if turn.number == reading.parting_turn:
            title = Text(f"turn {turn.number}: the branches part here", style="bold")
            parts += [Text(), Rule(title, align="left", characters="━", style="bold")]
            parts += [_message(one, "") for one in turn.shared]
        parts.append(_sides(turn, width))
    return Padding(Group(*parts), (0, 0, 1, 0))


def _facts(reading: Reading) -> Text:
    facts = [f"id {reading.id}", f"source {reading.source}", f"{reading.num_turns} turns"]
    if reading.spoiled_turns:
        facts.append("spoiled " + ", ".join(map(str, reading.spoiled_turns)))
    for model, chosen, rejected in reading.scores:
        wrong = "" if chosen > rejected else ", wrong order"
        facts.append(f"{model} {signed(chosen, 2)} against {signed(rejected, 2)}{wrong}")
    text = Text(visible("; ".join(facts)), style="dim")
    if reading.reason != ACCEPTED:
        detail = f": {reading.detail}" if reading.detail else ""
        text.append(visible(f"\n{words(reading.reason)}{detail}"), style=f"not dim {_REJECTED}")
    return text.append("\n")


def _sides(turn: Turn, width: int) -> RenderableType:
    chosen = _panel(turn, "chosen", turn.chosen, None, _CHOSEN)
    rejected = _panel(turn, "rejected", turn.rejected, turn.contrast, _REJECTED)
    if width < SIDE_BY_SIDE_FROM:
        return Group(chosen, rejected)
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(chosen, rejected)
    return grid


def _panel(
    turn: Turn, name: str, messages: list[Message], contrast: Contrast | None, colour: str
) -> RenderableType:
    parts: list[RenderableType] = [_message(one, "") for one in messages if one["role"] == "user"]
    if contrast is not None:
        parts.append(_contrast(contrast))
    parts += [_message(one, "") for one in messages if one["role"] != "user"]
    title = Text(f"{name}, turn {turn.number}", style=f"bold {colour}")
    nothing = Text("this side has no such turn", style="dim italic")
    return Panel(Group(*parts) if parts else nothing, title=title, title_align="left", border_style=colour)


def _contrast(contrast: Contrast) -> RenderableType:
    attempts = f" at attempt {contrast.attempts}" if contrast.attempts > 1 else ""
    instruction = Text(visible(contrast.instruction) or "no instruction was recorded", style=f"bold {_ALTER}")
    instruction.append(visible(f"  ({contrast.mode}{attempts})"), style="not bold dim")
    return Group(
        _labelled("asked", "dim", Text(visible(contrast.user_message), style="dim")),
        _labelled("answered", _ALTER, instruction),
    )


def _message(message: Message, style: str) -> RenderableType:
    body = "bold" if message["role"] == "user" and not style else style
    return _labelled(message["role"], "dim", Text(visible(message["content"]), style=body))


def _labelled(label: str, style: str, body: Text) -> RenderableType:
    """A label and a text whose further lines stay clear of the label."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=9)
    grid.add_column(overflow="fold")
    grid.add_row(Text(visible(label), style=style), body)
    return grid
