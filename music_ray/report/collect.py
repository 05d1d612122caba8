"""Everything the page shows, as plain data from the run folder.

A part that is missing is None or empty, and a part that is damaged becomes a sentence in `damage`: a
report can be built at any time. This module knows nothing of HTML or charts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from music_ray.config.load import dump_config
from music_ray.errors import MusicRayError
from music_ray.report import show
from music_ray.report.any_model import AnyModel
from music_ray.report.audit import AuditSection, read_audit
from music_ray.report.best_of_n import BestOfN
from music_ray.report.evaluation import Evaluation, read_evaluation
from music_ray.report.evaluations import read_place
from music_ray.report.given import Place, places
from music_ray.report.jsonlines import read_objects
from music_ray.report.mistakes import Mistakes, of_set, of_suite
from music_ray.report.plan import Comparison, read_comparison
from music_ray.report.reading import (
    Reading,
    few_of_each_reason,
    first_by_hash,
    pair_ids,
    read_pairs,
    read_refused,
    refusals,
)
from music_ray.report.stages import Reasons, Stage, Step, Tokens, read_stages, read_tokens, road
from music_ray.report.training import Training, read_training
from music_ray.rundir import RunDir

MAX_REFUSED = 8
MAX_SET_ASIDE = 10
_MAX_TEXT = 300
_PROVENANCE = ("engine", "model", "model_revision", "prompt_hash")

T = TypeVar("T")


@dataclass(slots=True)
class ReportData:
    """The page's content."""

    name: str
    manifest: dict[str, Any]
    config_yaml: str
    stages: list[Stage]
    road: list[Step]
    tokens: Tokens | None
    engines: list[dict[str, str]]
    """Distinct provenance of the rollouts: what really wrote them."""
    training: Training | None
    evaluation: Evaluation | None
    audit: AuditSection | None
    num_pairs: int
    pairs: list[Reading]
    num_refused: int
    refused: list[Reading]
    set_aside: list[dict[str, str]]
    plan: Comparison | None = None
    """What was planned beside what came; None without a plan."""
    folder: str = ""
    """The run folder, as the user would type it, without credentials."""
    any_models: list[AnyModel] = field(default_factory=list)
    best_of_n: list[BestOfN] = field(default_factory=list)
    mistakes: list[Mistakes] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)

    @property
    def beside(self) -> list[AnyModel | BestOfN]:
        """All evaluations beside the run's own stage."""
        return [*self.any_models, *self.best_of_n]

    @property
    def reasons(self) -> list[Reasons]:
        """All tables of reasons, in the order of the stages."""
        return [table for stage in self.stages for table in stage.reasons]


def collect(run: RunDir) -> ReportData:
    """Reads the run folder. Never raises for what is missing or damaged in it."""
    damage: list[str] = []
    manifest: dict[str, Any] = _part(damage, "manifest.json", run.manifest, {"stages": {}})
    stages: list[Stage] = _part(damage, "manifest.json", lambda: read_stages(run, manifest), [])
    tokens = _part(damage, "manifest.json", lambda: read_tokens(manifest), None)
    evaluation = _part(damage, "evaluation", lambda: read_evaluation(run), None)
    ids: list[str] = _part(damage, "pairs", lambda: pair_ids(run), [])
    pairs: list[Reading] = _part(damage, "pairs", lambda: _pairs(run, ids, evaluation), [])
    refused: list[dict[str, Any]] = _part(damage, "pairs/gates.jsonl", lambda: refusals(run), [])
    shown = few_of_each_reason(refused, MAX_REFUSED)
    others = _others(run, damage)
    any_models = [one for one in others if isinstance(one, AnyModel)]
    return ReportData(
        name=run.config.name,
        manifest=manifest,
        config_yaml=_part(damage, "config.yaml", lambda: _config_yaml(run), ""),
        stages=stages,
        road=road(stages),
        tokens=tokens,
        engines=_part(damage, "rollouts", lambda: _engines(run), []),
        training=_part(damage, "logs/train.jsonl", lambda: read_training(run), None),
        evaluation=evaluation,
        audit=_part(damage, "audit/audit.json", lambda: read_audit(run), None),
        num_pairs=len(ids),
        pairs=pairs,
        num_refused=len(refused),
        refused=_part(damage, "rollouts", lambda: read_refused(run, shown), []),
        set_aside=_part(damage, "seeds/set_aside.jsonl", lambda: _set_aside(run), []),
        plan=_part(damage, "plan.json", lambda: read_comparison(run, manifest), None),
        folder=show.sentence(run.display()),
        any_models=any_models,
        best_of_n=[one for one in others if isinstance(one, BestOfN)],
        mistakes=_mistakes(run, damage, evaluation, any_models),
        models={"simulator": run.config.engine.model, "reward model": run.config.train.base_model},
        damage=damage,
    )


def _part(damage: list[str], what: str, read: Callable[[], T], otherwise: T) -> T:
    """One part of the page; a file that cannot be read costs that part alone."""
    try:
        return read()
    except (MusicRayError, OSError, pa.ArrowException, UnicodeDecodeError) as error:
        sentence = show.sentence(f"{what} could not be read: {' '.join(str(error).split())}")
        if sentence not in damage:
            damage.append(sentence)
        return otherwise


def _pairs(run: RunDir, ids: list[str], evaluation: Evaluation | None) -> list[Reading]:
    readings = read_pairs(run, first_by_hash(ids, run.config.report.max_pairs))
    if evaluation is not None:
        for reading in readings:
            reading.scores.extend(evaluation.score_of(reading.id))
    return readings


def _others(run: RunDir, damage: list[str]) -> list[AnyModel | BestOfN]:
    """The evaluations beside the run's own stage."""
    there: list[Place] = _part(damage, "report/evaluations.json", lambda: places(run), [])
    found = [_part(damage, show.place(place.name), partial(read_place, place), None) for place in there]
    return [one for one in found if one is not None]


def _mistakes(
    run: RunDir, damage: list[str], own: Evaluation | None, any_models: list[AnyModel]
) -> list[Mistakes]:
    found: list[Mistakes] = []
    for suite in own.suites if own else ():
        one = _part(damage, f"mix/held_out/{suite.name}.parquet", partial(of_suite, run, suite), None)
        found += [one] if one else []
    for evaluation in any_models:
        for pairs in evaluation.sets:
            where = f"{show.place(evaluation.place.name)}/{pairs.name}"
            found += _part(damage, where, partial(of_set, evaluation, pairs), [])
    return found


def _config_yaml(run: RunDir) -> str:
    text = run.read_text("config.yaml") if run.exists("config.yaml") else dump_config(run.config)
    return show.sentence(text)


def _engines(run: RunDir) -> list[dict[str, str]]:
    found: set[tuple[str, ...]] = set()
    for path in run.parquet_files("rollouts"):
        with run.open_parquet(path) as file:
            table = file.read(columns=list(_PROVENANCE))
        distinct = table.group_by(list(_PROVENANCE)).aggregate([]).to_pylist()
        found |= {tuple(str(row[name] or "") for name in _PROVENANCE) for row in distinct}
    return [dict(zip(_PROVENANCE, one, strict=True)) for one in sorted(found)]


def _set_aside(run: RunDir) -> list[dict[str, str]]:
    """A few of the rows that could not be used, every reason before any reason twice."""
    rows = read_objects(run, "seeds", "set_aside.jsonl").objects
    numbered = [{**row, "id": index} for index, row in enumerate(rows)]
    return [
        {name: _short(row.get(name)) for name in ("source", "row", "reason", "detail", "text")}
        for row in few_of_each_reason(numbered, MAX_SET_ASIDE)
    ]


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} …"
