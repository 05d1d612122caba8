"""An evaluation in the terminal: a table for each pair set, one of RewardBench, one of agreement.

Knows evaluation.json's document and how it is read, nothing of how it was made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from music_ray.evaluate.sensitivity_show import print_sensitivity
from music_ray.paired_tests import FEWEST_CONTEXTS
from music_ray.visible import visible_values

_CUTS = {"by_source": "source", "by_num_turns": "turns", "by_branch_turn": "parting at turn"}
_LEAST_P = 1e-4


def print_evaluation(result: dict[str, Any]) -> None:
    """Prints what evaluation.json holds; models are called A, B, … in the order of the command.

    The length column is the rank correlation of score and length differences (accuracy.length_correlation).
    """
    result = visible_values(result)  # names of sources are text of others
    letters = {model["name"]: chr(ord("A") + index) for index, model in enumerate(result["models"])}
    # A pipe or a file gets whole lines however narrow the terminal may be taken for.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 150, highlight=False)
    for name, letter in letters.items():
        console.print(Text(f"{letter} = {name}"))
    for suite in result["pair_sets"]:
        title = f"{suite['name']}: {suite['num_pairs']:,} pairs of {suite['num_contexts']:,} contexts"
        console.print(
            Text(f"\n{title}, with {result['confidence']:.0%} intervals over contexts", style="bold")
        )
        console.print(_suite_table(suite, letters))
        for line in _suite_notes(suite, letters):
            console.print(Text(line))
        if any(found["agreement"] for found in suite["models"].values()):
            console.print(Text("agreement with the judge's verdicts", style="bold"))
            console.print(_agreement_table(suite, letters))
        if suite.get("sensitivity"):
            print_sensitivity(console, suite["sensitivity"], letters)
    if (told := result.get("verdicts")) and told["conflicting"]:
        console.print(
            Text(
                f"- {told['conflicting']} verdicts of {told['place']} say something else than an earlier one "
                "on the same pair, which counts: is it a file of several judges?"
            )
        )
    if any(result["rewardbench"].values()):
        console.print(Text(f"\n{_rewardbench_title(result['rewardbench'])}", style="bold"))
        console.print(_rewardbench_table(result["rewardbench"], letters))
        for line in _rewardbench_notes(result["rewardbench"]):
            console.print(Text(line))


# -- a pair set ------------------------------------------------------------------------------------


def _suite_table(suite: dict[str, Any], letters: dict[str, str]) -> Table:
    table = Table()
    table.add_column("pairs of", overflow="fold")
    table.add_column("number", justify="right", no_wrap=True)
    for letter in letters.values():
        table.add_column(f"accuracy {letter}", justify="right", no_wrap=True)
        table.add_column(f"length r {letter}", justify="right", no_wrap=True)
    for comparison in suite["comparisons"]:
        first, second = letters[comparison["first"]], letters[comparison["second"]]
        table.add_column(f"{first} − {second}", justify="right", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
    for name, keys in _rows(suite):
        estimates = [_at(found, keys) for found in suite["models"].values()]
        cells = [cell for estimate in estimates for cell in _accuracy_cells(estimate)]
        cells += [cell for one in suite["comparisons"] for cell in _difference_cells(_at(one, keys))]
        table.add_row(name, f"{estimates[0]['num_pairs']:,}", *cells)
    return table


def _rows(suite: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Label and keys of each row; a breakdown into one part says nothing more than all pairs."""
    yield "all", ("overall",)
    found = next(iter(suite["models"].values()))
    for cut, label in _CUTS.items():
        if len(found[cut]) > 1:
            yield from ((f"{label} {name}", (cut, name)) for name in found[cut])


def _at(document: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        document = document[key]
    return document


def _accuracy_cells(one: dict[str, Any]) -> tuple[str, str]:
    correlation = one["margin_length"]
    return _with_interval(one, "accuracy", ""), "–" if correlation is None else f"{correlation:+.2f}"


def _difference_cells(one: dict[str, Any]) -> tuple[str, str]:
    return _with_interval(one, "difference", "+"), _p(one["p_value"])


def _with_interval(one: dict[str, Any], name: str, sign: str) -> str:
    value, low, high = (f"{one[key]:{sign}.3f}" for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {high}]" if one["num_contexts"] >= FEWEST_CONTEXTS else value


def _p(value: float) -> str:
    return f"<{_LEAST_P:.4f}" if value < _LEAST_P else f"{value:.4f}"


def _suite_notes(suite: dict[str, Any], letters: dict[str, str]) -> Iterator[str]:
    for reason, count in suite["set_aside"].items():
        yield f"- {count} rows are no pairs: {reason}"
    ties = {letters[name]: found["overall"]["ties"] for name, found in suite["models"].items()}
    yield f"- ties, which count as wrong: {', '.join(f'{letter} {ties[letter]}' for letter in ties)}"
    for name, found in suite["models"].items():
        for reason, count in found["unscored_reasons"].items():
            yield f"- {letters[name]} has no score for {count} pairs ({reason}): they count as wrong"
    for one in suite["comparisons"]:
        overall = one["overall"]
        yield (
            f"- only {letters[one['first']]} is right on {overall['only_first_right']} pairs, only "
            f"{letters[one['second']]} on {overall['only_second_right']}; p goes by flips of whole contexts "
            f"(McNemar's test, which takes pairs as independent: {_p(overall['mcnemar_p_value'])})"
        )


def _agreement_table(suite: dict[str, Any], letters: dict[str, str]) -> Table:
    table = Table()
    columns = ("verdicts on", "model", "agrees", "length", "kappa", "preferences", "ties", "invalid")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for name, found in suite["models"].items():
        parts = found["agreement"] or {}
        rows = {"whole conversations": parts["whole"]} if "whole" in parts else {}
        rows |= {f"turn {turn}": one for turn, one in parts.get("by_turn", {}).items()}
        for label, one in rows.items():
            table.add_row(label, letters[name], *_agreement_cells(one))
    return table


def _agreement_cells(one: dict[str, Any]) -> list[str]:
    agrees, length = ("–", "–") if one["accuracy"] is None else _accuracy_cells(one)
    kappa = "–" if one["kappa"] is None else f"{one['kappa']:+.3f}"
    return [
        agrees,
        length,
        kappa,
        *(str(one[name]) for name in ("num_decided", "judge_tie", "judge_invalid")),
    ]


# -- RewardBench -----------------------------------------------------------------------------------


def _rewardbench_title(results: dict[str, dict[str, Any]]) -> str:
    first = next(iter(results.values()))
    kind = "RewardBench v1" if first["is_complete"] else "Partial RewardBench v1: no average"
    return f"{kind} ({first['num_pairs']:,} pairs), %"


def _rewardbench_table(results: dict[str, dict[str, Any]], letters: dict[str, str]) -> Table:
    first = next(iter(results.values()))
    table = Table()
    table.add_column("section")
    for name in results:
        table.add_column(letters[name], justify="right", no_wrap=True)
    for section in first["sections"]:
        table.add_row(section, *(_section_cell(one["sections"][section]) for one in results.values()))
    prior = [one["prior_sets"]["score"] for one in results.values()]
    table.add_row("Prior sets (weight 0.5)", *map(_percent, prior))
    table.add_section()
    table.add_row("average of the sections", *(_percent(one["average"]) for one in results.values()))
    with_prior = (_percent(one["average_with_prior_sets"]) for one in results.values())
    table.add_row("average with prior sets", *with_prior)
    table.add_section()
    for subset in first["subsets"]:
        cells = (
            f"{_percent(found['accuracy'])} ({found['num_pairs']}){_length(found)}"
            for found in (one["subsets"][subset] for one in results.values())
        )
        table.add_row(f"  {subset}", *cells)
    return table


def _length(one: dict[str, Any]) -> str:
    return "" if one["margin_length"] is None else f", length {one['margin_length']:+.2f}"


def _section_cell(one: dict[str, Any]) -> str:
    if one["score"] is None:
        return "–"
    return f"{_percent(one['score'])} [{_percent(one['score_low'])}, {_percent(one['score_high'])}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _rewardbench_notes(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    first = next(iter(results.values()))
    for name, section in first["sections"].items():
        if section["score"] is None:
            lacks = [
                *section["missing"],
                *(f"{one} ({there} of {all_} pairs)" for one, (there, all_) in section["incomplete"].items()),
            ]
            has = ", ".join(section["has"]) or "nothing"
            yield f"- {name} has no score: it lacks {', '.join(lacks)}; it has {has}"
    prior = first["prior_sets"]
    if prior["score"] is None:
        lacks = [*prior["missing"], *prior["incomplete"]]
        yield f"- no average with prior sets: {', '.join(lacks)} missing or incomplete"
    if first["unknown"]:
        names = ", ".join(f"{name} ({count})" for name, count in first["unknown"].items())
        yield f"- not subsets of RewardBench, and in no score of it: {names}"
