"""Whether the reward model got better: accuracies with intervals, the verdict, and single scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from music_ray.report.jsonlines import read_object
from music_ray.report.show import percent, signed
from music_ray.rundir import RunDir

TRAINED, UNTRAINED = "trained", "untrained"
_SIGNIFICANT = 0.05
_LABELS = {"preferences": "Preference pairs of D", "music": "MUSIC pairs"}


def sign_test(one: int, other: int) -> float:
    """Two-sided p-value of so uneven a split when both directions are equally likely."""
    number = one + other
    tail = sum(math.comb(number, count) for count in range(min(one, other) + 1))
    return min(1.0, 2 * tail / 2**number)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Accuracy and mean margin of one model on some pairs."""

    num_pairs: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    mean_margin: float
    mean_margin_low: float
    mean_margin_high: float
    ties: int


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model on one suite."""

    model: str
    overall: Estimate
    by_num_turns: list[tuple[int, Estimate]]


@dataclass(frozen=True, slots=True)
class ScoreSet:
    """Single scores of one model on one suite, in the order of `ids`."""

    ids: list[str]
    chosen: list[float]
    rejected: list[float]
    num_not_finite: int

    @property
    def margins(self) -> list[float]:
        """Chosen score minus rejected score."""
        return [one - other for one, other in zip(self.chosen, self.rejected, strict=True)]


@dataclass(frozen=True, slots=True)
class Suite:
    """All models on one set of held-out pairs."""

    name: str
    num_pairs: int
    num_conversations: int | None
    models: list[ModelResult]
    scores: dict[str, ScoreSet] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The suite's name in words."""
        return _LABELS.get(self.name, self.name)

    @property
    def turn_counts(self) -> list[int]:
        """Numbers of turns that any model has a result for."""
        return sorted({turns for result in self.models for turns, _ in result.by_num_turns})

    def overall(self, model: str) -> Estimate | None:
        """One model's result on the whole suite."""
        return next((result.overall for result in self.models if result.model == model), None)

    @property
    def verdict(self) -> str:
        """'better', 'worse' or 'not settled'; empty when the two models were not both measured.

        Better and worse ask for two things: intervals that do not overlap, and more pairs that changed
        their order than chance explains. On a handful of pairs bootstrap intervals are too narrow (all
        right gives an interval of no width), and the second keeps them from settling anything.
        """
        trained, untrained = self.overall(TRAINED), self.overall(UNTRAINED)
        if trained is None or untrained is None or not math.isfinite(trained.accuracy - untrained.accuracy):
            return ""
        if not (self.intervals_part and self.enough_changed):
            return "not settled"
        return "better" if trained.accuracy > untrained.accuracy else "worse"

    @property
    def intervals_part(self) -> bool:
        """Whether the two models' intervals do not overlap."""
        trained, untrained = self.overall(TRAINED), self.overall(UNTRAINED)
        if trained is None or untrained is None:
            return False
        return (
            trained.accuracy_low > untrained.accuracy_high or trained.accuracy_high < untrained.accuracy_low
        )

    @property
    def enough_changed(self) -> bool:
        """Whether a sign test on the pairs that changed their order tells the models apart."""
        return self.flips is None or sign_test(*self.flips) < _SIGNIFICANT

    @property
    def verdict_reason(self) -> str:
        """Why the verdict is what it is."""
        if not self.intervals_part:
            return "the intervals overlap"
        if not self.enough_changed:
            return "the intervals do not overlap, but too few pairs changed their order to rule out chance"
        return "the intervals do not overlap"

    @property
    def gain(self) -> str:
        """Accuracy gained by training, in points with a sign."""
        trained, untrained = self.overall(TRAINED), self.overall(UNTRAINED)
        if trained is None or untrained is None:
            return ""
        return f"{signed(100 * (trained.accuracy - untrained.accuracy), 1)} points"

    @property
    def flips(self) -> tuple[int, int] | None:
        """Pairs that only the trained model orders rightly, and pairs that only the untrained one does."""
        trained, untrained = self.scores.get(TRAINED), self.scores.get(UNTRAINED)
        if trained is None or untrained is None:
            return None
        before = dict(zip(untrained.ids, untrained.margins, strict=True))
        both = [
            (margin > 0, before[one] > 0)
            for one, margin in zip(trained.ids, trained.margins, strict=True)
            if one in before
        ]
        return sum(now and not then for now, then in both), sum(then and not now for now, then in both)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """evals/pairwise.json and scores/*.parquet."""

    confidence: float
    bootstrap_samples: int | None
    suites: list[Suite]

    @property
    def interval(self) -> str:
        """The intervals' coverage, as in '95%'."""
        return percent(self.confidence).replace(".0%", "%")

    def score_of(self, pair_id: str) -> list[tuple[str, float, float]]:
        """(model, chosen score, rejected score) of a held-out MUSIC pair; empty for any other."""
        found = []
        for suite in self.suites:
            for model, scores in suite.scores.items() if suite.name == "music" else ():
                if pair_id in scores.ids:
                    index = scores.ids.index(pair_id)
                    found.append((model, scores.chosen[index], scores.rejected[index]))
        return found


def read_evaluation(run: RunDir) -> Evaluation | None:
    """The evaluation with its single scores, or None when the stage has not run."""
    document = read_object(run, "evals", "pairwise.json") or {}
    suites = document.get("suites") or {}
    scores = read_scores(run)
    names = [*suites, *(name for name in scores if name not in suites)]
    if not names:
        return None
    return Evaluation(
        confidence=_number(document.get("confidence", run.config.evaluate.confidence)),
        bootstrap_samples=document.get("bootstrap_samples"),
        suites=[_suite(name, suites.get(name, {}), scores.get(name, {})) for name in names],
    )


def _suite(name: str, document: dict[str, Any], scores: dict[str, ScoreSet]) -> Suite:
    longest = max((len(one.ids) for one in scores.values()), default=0)
    return Suite(
        name=name,
        num_pairs=int(document.get("num_pairs", longest)),
        num_conversations=document.get("num_conversations"),
        models=[_result(model, values) for model, values in (document.get("models") or {}).items()],
        scores=scores,
    )


def _result(model: str, document: dict[str, Any]) -> ModelResult:
    by_turns = document.get("by_num_turns") or {}
    return ModelResult(
        model=model,
        overall=_estimate(document.get("overall") or {}),
        by_num_turns=[
            (int(turns), _estimate(by_turns[turns]))
            for turns in sorted(filter(str.isdigit, by_turns), key=int)
        ],
    )


def _estimate(document: dict[str, Any]) -> Estimate:
    names = [name for name in Estimate.__dataclass_fields__ if name not in ("num_pairs", "ties")]
    return Estimate(
        num_pairs=int(document.get("num_pairs") or 0),
        ties=int(document.get("ties") or 0),
        **{name: _number(document.get(name)) for name in names},
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def read_scores(run: RunDir) -> dict[str, dict[str, ScoreSet]]:
    """Score sets by suite and model, from scores/SUITE-MODEL.parquet."""
    found: dict[str, dict[str, ScoreSet]] = {}
    for path in run.parquet_files("scores"):
        suite, dash, model = path.rpartition("/")[2].removesuffix(".parquet").rpartition("-")
        if dash:
            found.setdefault(suite, {})[model] = _score_set(run, path)
    return {suite: dict(sorted(models.items())) for suite, models in found.items()}


def _score_set(run: RunDir, path: str) -> ScoreSet:
    with run.open_parquet(path) as file:
        table = file.read(columns=["id", "chosen_score", "rejected_score"])
    columns = (table[name].to_pylist() for name in ("id", "chosen_score", "rejected_score"))
    rows = [(str(one), _number(left), _number(right)) for one, left, right in zip(*columns, strict=True)]
    kept = [row for row in rows if math.isfinite(row[1]) and math.isfinite(row[2])]
    return ScoreSet(
        ids=[row[0] for row in kept],
        chosen=[row[1] for row in kept],
        rejected=[row[2] for row in kept],
        num_not_finite=len(rows) - len(kept),
    )
