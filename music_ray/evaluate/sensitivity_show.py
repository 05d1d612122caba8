"""The turn-sensitivity curve in the terminal: a table for each kind of spoiled reply, and what it says.

Knows what evaluation.json says of it, nothing of how it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

KINDS = {"foreign": "another conversation's reply", "contrast": "the rejected side's reply"}
VERDICTS = {
    "earlier_turns_too": "falls with a spoiled last reply, and with a spoiled earlier one",
    "last_turn_only": "falls with a spoiled last reply; no fall is seen with a spoiled earlier one",
    "earlier_turns_only": "falls with a spoiled earlier reply; no fall is seen with a spoiled last one",
    "earlier_turns_reversed": "reads earlier turns with the wrong sign: rises with a spoiled earlier reply",
    "neither": "no fall is seen",
    "too_few": "too few contexts to say, or no score",
}


_SAID = {"falls": "yes", "no_fall_seen": "not seen", "rises": "rises", "too_few": "too few"}


def print_sensitivity(console: Console, found: dict[str, Any], letters: dict[str, str]) -> None:
    """Prints one pair set's curves.

    Args:
        letters: what each model is called, by name.
    """
    for kind, label in KINDS.items():
        curves = {letters[name]: one[kind] for name, one in found["models"].items() if one[kind]}
        if curves:
            console.print(Text(f"one turn spoiled by {label}: fall of the score, in SD", style="bold"))
            console.print(_table(curves))
            for letter, curve in curves.items():
                console.print(Text(f"- {letter} {VERDICTS[curve['verdict']]}"))
    for line in _notes(found, letters):
        console.print(Text(line))


def _table(curves: dict[str, dict[str, Any]]) -> Table:
    table = Table()
    table.add_column("spoiled reply", no_wrap=True)
    table.add_column("number", justify="right", no_wrap=True)
    for letter in curves:
        table.add_column(f"fall {letter}", justify="right", no_wrap=True)
        table.add_column(f"fell {letter}", justify="right", no_wrap=True)
        table.add_column(f"falls {letter}", no_wrap=True)
    for label, keys in _rows(next(iter(curves.values()))):
        cells = [_at(curve, keys) for curve in curves.values()]
        shown = [text for one in cells for text in (_fall(one), _share(one["fell"]), _SAID[one["verdict"]])]
        table.add_row(label, f"{cells[0]['num_spoiled'] + cells[0]['unscored']:,}", *shown)
        if label == "all earlier":
            table.add_section()
    return table


def _rows(curve: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "last", ("last",)
    yield "all earlier", ("earlier",)
    for distance in curve["by_distance"]:
        if distance != "0":
            yield f"{distance} before the last", ("by_distance", distance)
    for turn in curve["by_turn"]:
        yield f"of turn {turn}", ("by_turn", turn)


def _at(curve: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        curve = curve[key]
    return curve


def _fall(cell: dict[str, Any]) -> str:
    if cell["fall_std"] is None:
        return "–"
    value = f"{cell['fall_std']:+.2f}"
    if cell["verdict"] == "too_few":
        return value
    return f"{value} [{cell['fall_std_low']:+.2f}, {cell['fall_std_high']:+.2f}]"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _notes(found: dict[str, Any], letters: dict[str, str]) -> Iterator[str]:
    conversations = f"{found['num_conversations']:,} conversations of {found['num_contexts']:,} contexts"
    yield f"- spoiled were {conversations}; SD: of a model's own scores of them as they were"
    for reason, count in found["left_out"].items():
        yield f"- {count} pairs have no chosen side to spoil: {reason}"
    if found["no_foreign_reply"]:
        yield f"- {found['no_foreign_reply']} turns are in no other conversation: no foreign reply for them"
    for name, one in found["models"].items():
        for reason, count in one["unscored_reasons"].items():
            yield f"- {letters[name]} has no score for {count} spoiled conversations ({reason}): left out"
