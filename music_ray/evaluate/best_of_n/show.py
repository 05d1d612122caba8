"""Best-of-N in the terminal: tables of win rates, one of what the checker says, and how far judges go.

Knows results.json's document and how it is read, nothing of how it was made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from music_ray.visible import visible_values

Document = dict[str, Any]
_WHO = itemgetter("first", "second", "judged_by")


def print_best_of_n(result: Document) -> None:
    """Prints what results.json holds; models are called A, B, … in the order of the command."""
    result = visible_values(result)  # names of sources and models are text of others
    letters = {model["digest"]: chr(ord("A") + index) for index, model in enumerate(result["models"])}
    # A pipe or a file gets whole lines however narrow the terminal may be taken for.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 150, highlight=False)
    for model in result["models"]:
        console.print(Text(f"{letters[model['digest']]} = {model['name']}"))
    settings = result["settings"]
    console.print(
        Text(
            f"{result['rows']['ok']:,} prompts, {settings['turns']} turns, {settings['confidence']:.0%} "
            "intervals over prompts"
        )
    )
    for title, found in _groups(result, letters):
        console.print(_win_rates(title, found))
    if result["checked"]:
        console.print(_checked(result, letters))
    for line in _notes(result, letters):
        console.print(Text(line), soft_wrap=True)


def _win_rates(title: str, found: list[Document]) -> Table:
    table = Table(title=title, title_justify="left")
    columns = ("by", "N", "wins", "same picks", "ties", "invalid", "unanswered", "counted")
    for column in (*columns, "win rate", "where picks differ", "at equal length"):
        table.add_column(column, justify="left" if column == "by" else "right", no_wrap=True)
    for one in found:
        table.add_row(
            one["selection"],
            str(one["n"]),
            f"{one['first_wins']} : {one['second_wins']}",
            *(str(one[name]) for name in ("same", "tie", "invalid", "unanswered", "num_counted")),
            *(_interval(one, name) for name in ("win_rate", "win_rate_differing", "length_controlled")),
        )
    return table


def _groups(result: Document, letters: dict[str, str]) -> Iterator[tuple[str, list[Document]]]:
    """The comparisons of two pickers by one judge, with a title."""
    for (first, second, judged_by), found in groupby(result["comparisons"], key=_WHO):
        who = f"{_name(first, letters)} against {_name(second, letters)}"
        yield f"{who}, judged by {judged_by.replace('_', ' ')}", list(found)


def _checked(result: Document, letters: dict[str, str]) -> Table:
    table = Table(title=f"By the checker {result['settings']['checker']}", title_justify="left")
    for number, column in enumerate(("picker", "by", "N", "prompts", "mean")):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for one in result["checked"]:
        alone = one["n"] == 1
        table.add_row(
            _name(one["picker"], letters),
            "–" if alone else one["selection"],
            "–" if alone else str(one["n"]),
            str(one["num_prompts"]),
            _interval(one, "mean"),
        )
    return table


def _notes(result: Document, letters: dict[str, str]) -> Iterator[str]:
    for one in result["trends"]:
        if one["slope"] is not None:
            who = f"{_name(one['first'], letters)} against {_name(one['second'], letters)}"
            yield (
                f"- {who} by {one['selection']} ({one['judged_by']}): each doubling of N changes the win "
                f"rate by {_interval(one, 'slope', '+.3f')}"
            )
    for name, one in result["judges"].items():
        yield (
            f"- {name} ({one['model']}): {one['num_questions']} pairs asked about in both orders; the first "
            f"place wins {_share(one['first_position_wins'])} of its winners (0.5 without bias), both orders "
            f"agree on {_share(one['agreement_in_both_orders'])}, {_repetition(one)}"
        )
    if both := result["judges_agree"]:
        yield (
            f"- the two judges say the same of {_share(both['share'])} of {both['num_questions']} pairs, and "
            f"of {_share(both['share_of_winners'])} where both name a winner"
        )
    for one in result["unscored"]:
        yield (
            f"- {_name(one['picker'], letters)} by {one['selection']} from {one['n']} could not pick "
            f"{one['num_unscored']:,} of {one['num_candidates']:,} candidates, which have no score"
        )
    for reason, count in result["prompts"]["set_aside"].items():
        yield f"- {count} rows of the prompts were set aside: {reason}"
    for reason, count in result["rows"]["errors"].items():
        yield f"- {count} prompts have no picks ({reason}) and are in no number"
    for line in result["warnings"]:
        yield f"- warning: {line}"


def _repetition(judge: Document) -> str:
    if judge["why_not_repeated"]:
        return f"and whether it would say the same again is not known: {judge['why_not_repeated']}"
    return (
        f"asked again it says the same of {_share(judge['agreement_on_repetition'])} of "
        f"{judge['num_repeated']}"
    )


def _name(picker: str, letters: dict[str, str]) -> str:
    return letters.get(picker, picker)


def _interval(one: Document, name: str, form: str = ".3f") -> str:
    if one[name] is None:
        return "–"
    return f"{one[name]:{form}} [{one[f'{name}_low']:{form}}, {one[f'{name}_high']:{form}}]"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
