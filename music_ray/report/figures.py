"""Which charts the page holds: the collected numbers handed to the drawing functions."""

from __future__ import annotations

import math

from music_ray.report import charts
from music_ray.report.audit import AuditSection
from music_ray.report.charts import BAD, DIM, GOOD, INK, Interval, Line
from music_ray.report.evaluation import UNTRAINED, Estimate, Evaluation, Suite
from music_ray.report.training import Training


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


def _interval(label: str, estimate: Estimate, model: str) -> Interval:
    return Interval(label, estimate.accuracy, estimate.accuracy_low, estimate.accuracy_high, _colour(model))


def _colour(model: str) -> str:
    return DIM if model == UNTRAINED else INK


def _slug(name: str) -> str:
    """A name as part of an HTML id."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
