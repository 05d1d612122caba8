"""What `music-ray evaluate --model` found: evaluation.json of one folder and the scores beside it.

Models are called A, B, … in the order of the command, as in its tables. Knows files, not HTML or charts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from music_ray.paired_tests import FEWEST_CONTEXTS
from music_ray.report.given import EVALUATION, Place, read_results
from music_ray.report.jsonlines import naming_damage
from music_ray.report.numbers import Span, counts, letter, number, span, whole
from music_ray.report.rewardbench import RewardBench, read_rewardbench
from music_ray.report.sensitivity import Sensitivity, read_sensitivity
from music_ray.rundir import RunDir

_NO_WORD = re.compile(r"[^A-Za-z0-9_]+")
_NAME = b"music_ray.model_name"
Scores = list[tuple[float, float]]
"""Chosen and rejected, a row a pair in the order of the set; not a number where there is none."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One model on some pairs."""

    num_pairs: int
    num_contexts: int
    accuracy: Span
    ties: int
    unscored: int
    length: float
    """Rank correlation of a pair's differences in score and in length."""

    @property
    def has_interval(self) -> bool:
        """Whether there are contexts enough for an interval to be shown."""
        return self.num_contexts >= FEWEST_CONTEXTS

    @property
    def shown(self) -> Span:
        """The accuracy, with an interval where there is one to show."""
        return self.accuracy.where(self.has_interval)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models on the same pairs."""

    first: str
    second: str
    difference: Span
    p_value: float


@dataclass(frozen=True, slots=True)
class SetResult:
    """All models on one pair set."""

    name: str
    content: str
    """A digest of the pairs: the same in two evaluations where these are of the same pairs."""
    num_pairs: int
    num_contexts: int
    set_aside: list[tuple[str, int]]
    overall: dict[str, Accuracy]
    """By the model's letter."""
    by_num_turns: list[tuple[str, dict[str, Accuracy]]]
    differences: list[Difference]
    sensitivity: Sensitivity | None
    scores: dict[str, Scores] = field(default_factory=dict)
    """By letter, of those models whose scores are of these pairs."""


@dataclass(frozen=True, slots=True)
class AnyModel:
    """One evaluation."""

    place: Place
    models: dict[str, str]
    """Name by letter."""
    confidence: float
    sets: list[SetResult]
    rewardbench: RewardBench | None
    digests: dict[str, str] = field(default_factory=dict)
    """Of the files that decide each model's scores, by letter; none where it was not recorded."""


def read_any_model(place: Place) -> AnyModel:
    """The evaluation in a folder.

    Raises:
        InputError: the document is damaged.
    """
    document: dict[str, Any] = dict(read_results(place, EVALUATION))
    with naming_damage("it", "run the same music-ray evaluate again"):
        letters = {str(one["name"]): letter(index) for index, one in enumerate(document["models"])}
        return AnyModel(
            place=place,
            models={mark: name for name, mark in letters.items()},
            confidence=number(document["confidence"]),
            sets=[_set(place.folder, one, letters, _digests(document)) for one in document["pair_sets"]],
            rewardbench=read_rewardbench(document["rewardbench"], letters),
            digests=digests_of(document["models"]),
        )


def digests_of(models: list[dict[str, Any]]) -> dict[str, str]:
    """The digests that a document records of its models, by letter."""
    return {letter(index): str(one["digest"]) for index, one in enumerate(models) if one.get("digest")}


def _digests(document: dict[str, Any]) -> dict[str, str]:
    """The part of a model's digest that names its files, by name."""
    return {str(one["name"]): _NO_WORD.sub("-", str(one["digest"])[:8]) for one in document["models"]}


def _set(
    folder: RunDir, document: dict[str, Any], letters: dict[str, str], digests: dict[str, str]
) -> SetResult:
    models = {letters[name]: one for name, one in document["models"].items()}
    turns = sorted({turn for one in models.values() for turn in one["by_num_turns"]}, key=int)
    return SetResult(
        name=str(document["name"]),
        content=str(document["content"]),
        num_pairs=whole(document["num_pairs"]),
        num_contexts=whole(document["num_contexts"]),
        set_aside=counts(document["set_aside"]),
        overall={mark: _accuracy(one["overall"]) for mark, one in models.items()},
        by_num_turns=[
            (turn, {mark: _accuracy(one["by_num_turns"][turn]) for mark, one in models.items()})
            for turn in turns
        ],
        differences=[
            Difference(
                letters[one["first"]],
                letters[one["second"]],
                span(one["overall"], "difference"),
                number(one["overall"]["p_value"]),
            )
            for one in document["comparisons"]
        ],
        sensitivity=read_sensitivity(document.get("sensitivity"), letters),
        scores={
            letters[name]: scores
            for name, digest in digests.items()
            if (scores := _scores(folder, str(document["name"]), name, digest, whole(document["num_pairs"])))
        },
    )


def _accuracy(document: dict[str, Any]) -> Accuracy:
    return Accuracy(
        num_pairs=whole(document["num_pairs"]),
        num_contexts=whole(document["num_contexts"]),
        accuracy=span(document, "accuracy"),
        ties=whole(document["ties"]),
        unscored=whole(document["unscored"]),
        length=number(document["margin_length"]),
    )


def _scores(folder: RunDir, name: str, model: str, digest: str, num_pairs: int) -> Scores:
    """Of one model on the present pairs: an earlier command may have left files of others."""
    for path in folder.parquet_files(name):
        stem = path.removeprefix(folder.path(name) + "/").removesuffix(".parquet")
        if "/" in stem or not stem.startswith("scores-") or not stem.endswith(digest):
            continue
        with folder.open_parquet(path) as file:
            written_for = (file.schema_arrow.metadata or {}).get(_NAME, b"").decode("utf-8", "replace")
            if written_for == model and file.metadata.num_rows == num_pairs:
                table = file.read(columns=["chosen_score", "rejected_score"])
                columns = [pc.fill_null(table[side], math.nan).to_pylist() for side in table.column_names]
                return list(zip(*columns, strict=True))
    return []
