"""Whether the reward model got better: accuracies with intervals, the verdict, and single scores.

Runs that were evaluated before breakdowns and comparisons were written have none of them here either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from music_ray.paired_tests import FEWEST_CONTEXTS
from music_ray.report.jsonlines import naming_damage, read_object
from music_ray.report.numbers import Span, whole
from music_ray.report.paired import Paired, Right, contexts_of, tested, written
from music_ray.report.show import percent, signed
from music_ray.rundir import RunDir

TRAINED, UNTRAINED = "trained", "untrained"
_LABELS = {"preferences": "Preference pairs of D", "music": "MUSIC pairs"}


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
    margin_length: float
    """Rank correlation of a pair's differences in score and in length; not a number where it is not known."""
    ties: int
    num_contexts: int
    """0 where it is not known, as in evaluations of earlier versions; their intervals are shown."""

    @property
    def has_interval(self) -> bool:
        """Whether there are contexts enough for an interval to be shown."""
        return not 0 < self.num_contexts < FEWEST_CONTEXTS

    @property
    def shown(self) -> Span:
        """The accuracy, with an interval where there is one to show."""
        return Span(self.accuracy, self.accuracy_low, self.accuracy_high).where(self.has_interval)


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model on one suite."""

    model: str
    overall: Estimate
    by_num_turns: list[tuple[int, Estimate]]
    by_branch_turn: list[tuple[int, Estimate]]
    by_source: list[tuple[str, Estimate]]

    @property
    def parts(self) -> list[tuple[str, Estimate]]:
        """All pairs, then each breakdown; one into a single part says nothing more than all pairs."""
        turns = [(f"{number} turn{'' if number == 1 else 's'}", one) for number, one in self.by_num_turns]
        parting = [(f"parting at turn {number}", one) for number, one in self.by_branch_turn]
        sources = [(f"source {name}", one) for name, one in self.by_source]
        cuts = [cut for cut in (turns, parting, sources) if len(cut) > 1]
        return [("all", self.overall), *(part for cut in cuts for part in cut)]


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

    @property
    def right(self) -> Right:
        """Whether the chosen side scores higher, by pair."""
        return {id_: margin > 0 for id_, margin in zip(self.ids, self.margins, strict=True)}


@dataclass(frozen=True, slots=True)
class Suite:
    """All models on one set of held-out pairs."""

    name: str
    num_pairs: int
    num_conversations: int | None
    models: list[ModelResult]
    scores: dict[str, ScoreSet] = field(default_factory=dict)
    paired: Paired | None = None
    """The trained model less the untrained one; None where they were not compared pair by pair."""

    @property
    def label(self) -> str:
        """The suite's name in words."""
        return _LABELS.get(self.name, self.name)

    @property
    def rows(self) -> list[tuple[str, list[tuple[str, Estimate]]]]:
        """Rows of a table: which pairs, and each model on them."""
        rows: dict[str, list[tuple[str, Estimate]]] = {}
        for result in self.models:
            for label, one in result.parts:
                rows.setdefault(label, []).append((result.model, one))
        return list(rows.items())

    def overall(self, model: str) -> Estimate | None:
        """One model's result on the whole suite."""
        return next((result.overall for result in self.models if result.model == model), None)

    @property
    def verdict(self) -> str:
        """'better', 'worse', 'not settled' or 'not tested'; empty when the two models were not both measured.

        It goes by the difference over the same pairs: two models' own intervals may overlap where one is
        better on nearly every pair that they differ on.
        """
        trained, untrained = self.overall(TRAINED), self.overall(UNTRAINED)
        if trained is None or untrained is None or not math.isfinite(trained.accuracy - untrained.accuracy):
            return ""
        if self.paired is None:
            return "not tested"
        if not self.paired.is_settled:
            return "not settled"
        return "better" if self.paired.difference.value > 0 else "worse"

    @property
    def verdict_reason(self) -> str:
        """Why the verdict is what it is."""
        if self.paired is None:
            return (
                "whether the difference could be chance is not known: this evaluation holds no comparison "
                "pair by pair, and the scores or the held-out pairs are gone"
            )
        if self.paired.is_settled:
            return self.paired.text
        why = "the interval holds 0" if self.paired.holds_zero else "it could be chance"
        return f"{self.paired.text}: {why}"

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
        before = untrained.right
        both = [(now, before[id_]) for id_, now in trained.right.items() if id_ in before]
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
    """The evaluation with its single scores, or None when the stage has not run.

    Raises:
        InputError: evals/pairwise.json, or a file of scores, is damaged.
    """
    document = read_object(run, "evals", "pairwise.json") or {}
    scores = read_scores(run)
    remedy = f"remove {run.display('evals')} and run music-ray evaluate CONFIG again"
    with naming_damage("evals/pairwise.json", remedy):
        suites: dict[str, Any] = dict(document.get("suites") or {})
        names = [*suites, *(name for name in scores if name not in suites)]
        if not names:
            return None
        return Evaluation(
            confidence=_number(document.get("confidence", run.config.evaluate.confidence)),
            bootstrap_samples=whole(document.get("bootstrap_samples")) or None,
            suites=[_suite(run, name, suites.get(name, {}), scores.get(name, {})) for name in names],
        )


def _suite(run: RunDir, name: str, document: dict[str, Any], scores: dict[str, ScoreSet]) -> Suite:
    longest = max((len(one.ids) for one in scores.values()), default=0)
    return Suite(
        name=name,
        num_pairs=int(document.get("num_pairs", longest)),
        num_conversations=whole(document.get("num_conversations")) or None,
        models=[_result(model, values) for model, values in (document.get("models") or {}).items()],
        scores=scores,
        paired=_paired(run, name, document, scores),
    )


def _paired(run: RunDir, name: str, document: dict[str, Any], scores: dict[str, ScoreSet]) -> Paired | None:
    found = written(document.get("comparisons"), TRAINED, UNTRAINED)
    if found is not None or TRAINED not in scores or UNTRAINED not in scores:
        return found
    return tested(scores[TRAINED].right, scores[UNTRAINED].right, contexts_of(run, name))


def _result(model: str, document: dict[str, Any]) -> ModelResult:
    sources = document.get("by_source") or {}
    return ModelResult(
        model=model,
        overall=_estimate(document.get("overall") or {}),
        by_num_turns=_by_number(document.get("by_num_turns") or {}),
        by_branch_turn=_by_number(document.get("by_branch_turn") or {}),
        by_source=[(str(source), _estimate(one)) for source, one in sources.items()],
    )


def _by_number(document: dict[str, Any]) -> list[tuple[int, Estimate]]:
    return [(int(one), _estimate(document[one])) for one in sorted(filter(str.isdigit, document), key=int)]


def _estimate(document: dict[str, Any]) -> Estimate:
    counts = ("num_pairs", "ties", "num_contexts")
    names = [name for name in Estimate.__dataclass_fields__ if name not in counts]
    return Estimate(
        num_pairs=int(document.get("num_pairs") or 0),
        ties=int(document.get("ties") or 0),
        num_contexts=int(document.get("num_contexts") or 0),
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
