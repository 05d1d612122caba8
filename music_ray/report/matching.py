"""What two runs' evaluations have in common: the same pairs, and models that play the same part in each.

A run's own model is called so in both columns, whatever its folder; so are the models that training started
from. All other models keep their names. Knows what reports collect, not how it is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from music_ray.report.best_of_n import BestOfN, Match, Rate
from music_ray.report.collect import ReportData
from music_ray.report.evaluation import TRAINED, Suite
from music_ray.report.numbers import Span
from music_ray.report.paired import Right, chance, contexts_of, tested
from music_ray.report.parts import Part, Row, merged
from music_ray.report.sensitivity import Point
from music_ray.report.show import NOTHING, count, known_signed, percent, place
from music_ray.rundir import RunDir
from music_ray.schema import pair_content

OWN, STARTED_FROM = "the run's model", "what it started from"
_UNTRAINED = "untrained:"
Run = tuple[RunDir, ReportData]
"""A run's folder, and what its report has collected."""


def parts(first: Run, second: Run) -> list[Part]:
    """The tables of the evaluations beside the runs' own stage."""
    runs = (first, second)
    contents = [dict(_contents(data)) for _, data in runs]
    other_pairs = [
        f"{name}: other pairs in one run than in the other."
        for name in contents[0]
        if name in contents[1] and contents[0][name] != contents[1][name]
    ]
    evaluate = "music-ray evaluate --model RUN/model --pairs FILE --out RUN/evaluations/NAME makes one."
    best_of_n = "music-ray best-of-n CONFIG --model RUN/model --out RUN/evaluations/best-of-n makes them."
    return [
        Part(
            "Accuracy on any pairs",
            "Pairs whose chosen side scores higher, with intervals over contexts",
            _rows(runs, [dict(_accuracies(*one)) for one in runs]),
            f"No evaluation of any models in either run: {evaluate}",
            other_pairs,
        ),
        Part(
            "Turn-sensitivity",
            "Fall of the score with one spoiled reply, in standard deviations of the model's own scores",
            _rows(runs, [dict(_falls(*one)) for one in runs]),
            "No turn-sensitivity in either run: music-ray evaluate --model … --sensitivity measures it.",
        ),
        Part(
            "Win rates in best-of-N",
            "Of the first, over the prompts with an outcome, with intervals over prompts",
            _rows(runs, [dict(_win_rates(*one)) for one in runs]),
            f"No win rates in either run: {best_of_n}",
            _other_games(runs),
        ),
    ]


def part_of(name: str, run: RunDir) -> str:
    """What a model that was named on a command line is to a run."""
    if name.startswith(_UNTRAINED):
        return STARTED_FROM if _is(name.removeprefix(_UNTRAINED), run) else name
    return OWN if _is(name, run, "model") else name


def _is(name: str, run: RunDir, *below: str) -> bool:
    if name.rstrip("/") == run.display(*below).rstrip("/"):
        return True
    return run.is_local and os.path.abspath(os.path.expanduser(name)) == run.path(*below)


def _rows(runs: tuple[Run, Run], columns: list[dict[str, str]]) -> list[Row]:
    return [(_fit(label, runs), one, other) for label, one, other in merged(*columns)]


def _fit(label: str, runs: tuple[Run, Run]) -> str:
    """A label with models' places fit for a page: rows are merged before, since these tell less apart."""
    models = [one.models for _, data in runs for one in data.any_models]
    models += [one.models for _, data in runs for one in data.best_of_n]
    named = {name for one in models for name in one.values() if place(name) != name}
    longest_first = "|".join(re.escape(name) for name in sorted(named, key=len, reverse=True))
    return re.sub(longest_first, lambda match: place(match[0]), label) if named else label


def _contents(data: ReportData) -> Iterator[tuple[str, str]]:
    for found in data.any_models:
        for pairs in found.sets:
            yield pairs.name, pairs.content


def _accuracies(run: RunDir, data: ReportData) -> Iterator[tuple[str, str]]:
    for found in data.any_models:
        for pairs in found.sets:
            for letter, one in pairs.overall.items():
                shown = _share(one.accuracy, one.num_pairs)
                yield f"{pairs.name}, {part_of(found.models[letter], run)}", shown


def _falls(run: RunDir, data: ReportData) -> Iterator[tuple[str, str]]:
    for found in data.any_models:
        for pairs in found.sets:
            for curve in pairs.sensitivity.curves if pairs.sensitivity else ():
                who = f"{pairs.name}, {part_of(found.models[curve.letter], run)}, {curve.label}"
                yield f"{who}: last turn", _fall(curve.last)
                yield f"{who}: all earlier", _fall(curve.earlier)


def _fall(point: Point) -> str:
    found = point.fall_std
    if not found.is_known:
        return NOTHING
    interval = f"{known_signed(found.low, 2)} to {known_signed(found.high, 2)}"
    return f"{known_signed(found.value, 2)} ({interval}), {point.verdict}"


def _win_rates(run: RunDir, data: ReportData) -> Iterator[tuple[str, str]]:
    for who, how, _, _, rate in _games(run, data):
        left_out = rate.num_prompts - rate.num_counted
        noted = f", {count(left_out)} left out" if left_out and rate.win_rate.is_known else ""
        yield f"{who}, {how}", _share(rate.win_rate, rate.num_counted) + noted


def _games(run: RunDir, data: ReportData) -> Iterator[tuple[str, str, BestOfN, Match, Rate]]:
    """Every win rate: who against whom, how they picked and who judged, and what it is from."""
    for found in data.best_of_n:
        for match in found.matches:
            first, second = (
                part_of(found.models[one], run) if one in found.models else one
                for one in (match.first, match.second)
            )
            for rate in match.rates:
                how = f"by {rate.selection}, N = {rate.n}, judged by {match.judged_by}"
                yield f"{first} against {second}", how, found, match, rate


def _other_games(runs: tuple[Run, Run]) -> list[str]:
    """What keeps two win rates of one row from being compared."""
    first, second = (
        {
            (who, how): (f"{who}, judged by {match.judged_by}", _played(found, match))
            for who, how, found, match, _ in _games(*one)
        }
        for one in runs
    )
    common = [key for key in first if key in second]
    notes = [
        f"{_fit(first[key][0], runs)}: {first[key][1]} in the first run, {second[key][1]} in the second."
        for key in common
        if first[key][1] != second[key][1]
    ]
    unknown = (
        "Which prompts a win rate is of is not in its results: compare runs only where best_of_n.prompts, "
        "sources and num_prompts were the same."
    )
    return [*dict.fromkeys(notes), *([unknown] if common else [])]


def _played(found: BestOfN, match: Match) -> str:
    """The number of turns, and the judge's model where a model judged."""
    turns = "1 turn" if found.turns == 1 else f"{found.turns} turns"
    models = [place(one.model) for one in found.judges if one.name == match.judged_by]
    return ", ".join([turns, *models])


def _share(found: Span, number: int) -> str:
    if not found.is_known:
        return NOTHING
    return f"{percent(found.value)} ({percent(found.low)} to {percent(found.high)}) of {count(number)}"


# -- the same held-out pairs -----------------------------------------------------------------------


def common_suites(first: ReportData, second: ReportData) -> list[tuple[Suite, Suite]]:
    """Suites that both runs were evaluated on, by name."""
    others = {suite.name: suite for suite in (second.evaluation.suites if second.evaluation else ())}
    mine = first.evaluation.suites if first.evaluation else ()
    return [(suite, others[suite.name]) for suite in mine if suite.name in others]


def same_pairs(one: Suite, first: RunDir, second: RunDir, other: Suite) -> str:
    """On how many of the very same pairs both trained models were tried, and who is right on which.

    Pairs are the same where id and both sides are: a MUSIC pair's id is its seed's, whatever was written.
    """
    held = [_held_out(run, one.name) for run in (first, second)]
    right = [_right(suite) for suite in (one, other)]
    common = [
        id_
        for id_, content in held[0].items()
        if held[1].get(id_) == content and id_ in right[0] and id_ in right[1]
    ]
    if not common:
        return "no pair was scored in both runs, so the two accuracies are of different pairs."
    only_first = sum(right[0][id_] and not right[1][id_] for id_ in common)
    only_second = sum(right[1][id_] and not right[0][id_] for id_ in common)
    mine, others = ({id_: each[id_] for id_ in common} for each in right)
    paired = tested(mine, others, contexts_of(first, one.name))
    test = f" ({chance(paired.p_value)} by exchanges of whole contexts)" if paired else ""
    return (
        f"{count(len(common))} pairs were scored in both runs; the first run's model alone is right on "
        f"{count(only_first)} of them, the second's alone on {count(only_second)}{test}."
    )


def _held_out(run: RunDir, suite: str) -> dict[str, int]:
    if not run.exists("mix", "held_out", f"{suite}.parquet"):
        return {}
    found: dict[str, int] = {}
    with run.open_parquet(run.path("mix", "held_out", f"{suite}.parquet")) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["id", "chosen", "rejected"]):
            rows: list[dict[str, Any]] = batch.to_pylist()
            found.update((str(row["id"]), pair_content(row)) for row in rows)
    return found


def _right(suite: Suite) -> Right:
    scores = suite.scores.get(TRAINED)
    return {} if scores is None else scores.right
