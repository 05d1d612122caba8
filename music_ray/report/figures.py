"""Which charts the page holds: the collected numbers handed to the drawing functions."""

from __future__ import annotations

import math

from music_ray.report import charts
from music_ray.report.any_model import AnyModel, SetResult
from music_ray.report.audit import AuditSection
from music_ray.report.best_of_n import BestOfN, Match
from music_ray.report.calibration import Calibration
from music_ray.report.charts import ALTER, BAD, DIM, GOOD, INK, Interval, Line
from music_ray.report.evaluation import TRAINED, UNTRAINED, Estimate, Evaluation, Suite
from music_ray.report.numbers import Span
from music_ray.report.training import Training
from music_ray.visible import visible

_COLOURS = (INK, DIM, ALTER, GOOD, BAD)
"""Of models that share a chart, in their order."""


def training_charts(training: Training | None) -> dict[str, str]:
    """Curves of the training log; a series that was never logged has no chart."""
    if training is None:
        return {}
    series, steps = training.series, training.steps
    drawn = {
        "loss": ([Line("loss", series["loss"])], math.log(2)),
        "accuracy": ([Line("accuracy", series["accuracy"])], 0.5),
        "margin": ([Line("margin", series["margin"])], 0.0),
        "rewards": (
            [Line("chosen", series["chosen_reward"], GOOD), Line("rejected", series["rejected_reward"], BAD)],
            None,
        ),
        "gradient": ([Line("gradient norm", series["gradient_norm"])], None),
        "rate": ([Line("learning rate", series["learning_rate"])], None),
    }
    return {
        name: charts.line_chart(f"train-{name}", f"{name} by step", steps, lines, reference=reference)
        for name, (lines, reference) in drawn.items()
        if any(math.isfinite(value) for line in lines for value in line.values)
    }


def audit_chart(audit: AuditSection | None) -> str | None:
    """The AUC of every view of the audit, MUSIC pairs above D."""
    rows = [
        Interval(f"{row.name}{of}", auc.value, auc.low, auc.high, colour)
        for row in (audit.views if audit else ())
        for of, auc, colour in (("", row.music, INK), (", D", row.preferences, DIM))
        if auc is not None
    ]
    return charts.interval_chart("audit", "AUC of the shortcut audit", rows, "AUC") if rows else None


def accuracy_chart(evaluation: Evaluation | None) -> str | None:
    """All suites and models in one chart."""
    suites = evaluation.suites if evaluation else []
    rows = [
        _interval(f"{suite.name}, {result.model}", result.overall, result.model)
        for suite in suites
        for result in suite.models
        if math.isfinite(result.overall.accuracy)
    ]
    return charts.interval_chart("accuracy", "Accuracy with intervals", rows, "accuracy") if rows else None


def accuracy_of_two(first: Evaluation | None, second: Evaluation | None) -> str | None:
    """The trained models of two runs on their held-out suites, the second in grey."""
    rows = [
        _of_span(f"{visible(suite.name)}, {which}", one.shown, colour)
        for which, evaluation, colour in (("first", first, INK), ("second", second, DIM))
        for suite in (evaluation.suites if evaluation else ())
        if (one := suite.overall(TRAINED)) is not None and math.isfinite(one.accuracy)
    ]
    rows.sort(key=lambda row: row.label)
    return charts.interval_chart("of-two", "Accuracy of two runs", rows, "accuracy") if rows else None


def turns_chart(suite: Suite) -> str | None:
    """Accuracy by number of turns, when there is more than one number."""
    groups = [
        (
            result.model,
            [
                (turns, _interval(str(turns), estimate, result.model))
                for turns, estimate in result.by_num_turns
                if math.isfinite(estimate.accuracy)
            ],
        )
        for result in suite.models
    ]
    if len({turns for _, points in groups for turns, _ in points}) < 2:
        return None
    title = f"{suite.label}: accuracy by number of turns"
    return charts.turns_chart(f"turns-{_slug(suite.name)}", title, groups)


def score_charts(suite: Suite) -> list[tuple[str, str]]:
    """(caption, chart): scores of both sides and their margins, for each model."""
    drawn = []
    for model, scores in suite.scores.items():
        if not scores.ids:
            continue
        key = f"{_slug(suite.name)}-{_slug(model)}"
        sides = [Line("chosen", scores.chosen, GOOD), Line("rejected", scores.rejected, BAD)]
        title = f"{suite.label}, {model} model"
        drawn.append(
            (f"{model}: scores", charts.histogram(f"scores-{key}", f"{title}: scores", sides, "score"))
        )
        margin = [Line("margin", scores.margins, _colour(model))]
        drawn.append(
            (
                f"{model}: margins",
                charts.histogram(
                    f"margins-{key}", f"{title}: margins", margin, "chosen minus rejected", zero=True
                ),
            )
        )
    return drawn


def sensitivity_charts(index: int, found: AnyModel) -> dict[tuple[str, str], str]:
    """The curve of every model on every pair set, by the set's name and the model's letter.

    Args:
        index: of the evaluation on the page, for ids.
    """
    drawn: dict[tuple[str, str], str] = {}
    for number, pairs in enumerate(found.sets):
        for letter in found.models:
            curves = _falls(pairs, letter)
            if curves:
                key = f"sensitivity-{index}-{number}-{letter}"
                title = f"{visible(pairs.name)}, model {letter}: fall of the score with one spoiled reply"
                drawn[pairs.name, letter] = charts.fall_chart(key, title, curves)
    return drawn


def _falls(pairs: SetResult, letter: str) -> list[tuple[str, list[tuple[int, Interval]]]]:
    curves = pairs.sensitivity.curves if pairs.sensitivity else []
    return [
        (curve.kind, points)
        for curve in curves
        if curve.letter == letter
        and (
            points := [
                (
                    distance,
                    _of_span(str(distance), point.shown, ALTER if curve.kind == "contrast" else INK),
                )
                for distance, point in curve.by_distance
                if point.fall_std.is_known
            ]
        )
    ]


def win_rate_charts(index: int, found: BestOfN) -> list[tuple[Match, str]]:
    """Win rates by N of all that were compared; a match without any rate has no chart."""
    drawn = []
    for number, match in enumerate(found.matches):
        groups = [
            (f"by {visible(selection)}", bars)
            for place, selection in enumerate(match.selections)
            if (
                bars := [
                    (one.n, _of_span(str(one.n), one.win_rate, (INK, DIM)[place % 2]))
                    for one in match.rates
                    if one.selection == selection and one.win_rate.is_known
                ]
            )
        ]
        if groups:
            title = f"{match.first} against {match.second}, judged by {match.judged_by}: win rate by N"
            drawn.append((match, charts.bar_chart(f"wins-{index}-{number}", visible(title), groups)))
    return drawn


def reliability_chart(key: str, title: str, models: list[Calibration]) -> str:
    """One diagram of all models on one set of pairs."""
    groups = [
        (
            visible(one.model),
            _COLOURS[index % len(_COLOURS)],
            [(held.confidence, held.accuracy, held.num_pairs) for held in one.bins],
        )
        for index, one in enumerate(models)
    ]
    title = f"{visible(title)}: calibration of margins"
    return charts.reliability_chart(f"calibration-{_slug(key)}", title, groups)


def _of_span(label: str, found: Span, colour: str) -> Interval:
    return Interval(label, found.value, found.low, found.high, colour)


def _interval(label: str, estimate: Estimate, model: str) -> Interval:
    return _of_span(label, estimate.shown, _colour(model))


def _colour(model: str) -> str:
    return DIM if model == UNTRAINED else INK


def _slug(name: str) -> str:
    """A name as part of an HTML id."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
