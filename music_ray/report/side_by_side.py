"""Two runs side by side: what differs in them, and in what came of it.

Assembles what the report of each run knows: its folder, and the evaluations that were named for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from music_ray.report import matching
from music_ray.report.collect import ReportData
from music_ray.report.evaluation import Estimate
from music_ray.report.parts import Part, Row, merged
from music_ray.report.show import NOTHING, count, decimal, duration, percent, sentence, share, words
from music_ray.rundir import RunDir

ACCURACY = "Accuracy on held-out pairs"
"""Title of the table that has a chart."""
_PLACE = ("name", "runs_dir")
"""Keys that say where a run lies."""


def parts(first: tuple[RunDir, ReportData], second: tuple[RunDir, ReportData]) -> list[Part]:
    """All tables of two runs in the order of the page."""
    (one, left), (other, right) = first, second
    return [
        Part(
            "Configuration",
            "Keys with different values; all others are the same",
            _differing(_flat_config(one), _flat_config(other)),
            "The configurations are the same.",
        ),
        Part(
            "Provenance",
            "What made them, where it differs",
            _differing(_provenance(left), _provenance(right)),
            "The same commit and the same versions.",
        ),
        Part("How far the data came", "Counts, then losses by reason", _funnel(left, right), "Nothing ran."),
        Part(
            "Time",
            "Of each stage, every start included",
            merged(_seconds(left), _seconds(right)),
            "Nothing ran.",
        ),
        Part(
            "Tokens",
            "Of the generate stage",
            merged(_tokens(left), _tokens(right)),
            "Neither run has recorded tokens: music-ray generate does.",
        ),
        _accuracy(first, second),
        *matching.parts(first, second),
    ]


# -- what was asked for ----------------------------------------------------------------------------


def _flat_config(run: RunDir) -> dict[str, str]:
    return dict(_flatten(run.config.model_dump(mode="json", exclude=set(_PLACE))))


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, sentence(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _provenance(data: ReportData) -> dict[str, str]:
    found = {"git commit": str(data.manifest.get("git_commit") or "none")}
    return found | {str(name): str(one) for name, one in (data.manifest.get("versions") or {}).items()}


def _differing(one: dict[str, str], other: dict[str, str]) -> list[Row]:
    return [row for row in merged(one, other) if row[1] != row[2]]


# -- how far it came -------------------------------------------------------------------------------


def _funnel(left: ReportData, right: ReportData) -> list[Row]:
    steps = [{step.label: count(step.value) for step in data.road} for data in (left, right)]
    losses = [_losses(data) for data in (left, right)]
    lost = [(label, one or "0", other or "0") for label, one, other in _blank(merged(*losses))]
    rows = [*merged(*steps), *lost]
    return rows if any(cell not in (NOTHING, "0") for row in rows for cell in row[1:]) else []


def _blank(rows: Iterable[Row]) -> Iterator[Row]:
    """A reason that only one run knows came about 0 times in the other."""
    for label, one, other in rows:
        yield label, one.replace(NOTHING, ""), other.replace(NOTHING, "")


def _losses(data: ReportData) -> dict[str, str]:
    return {
        f"{table.stage}, {table.label}: {words(reason)}": count(number)
        for table in data.reasons
        for reason, number in table.rows
    }


def _seconds(data: ReportData) -> dict[str, str]:
    return {
        stage.name: duration(stage.total_seconds) for stage in data.stages if stage.total_seconds is not None
    }


def _tokens(data: ReportData) -> dict[str, str]:
    tokens = data.tokens
    if tokens is None:
        return {}
    found = {
        "prompt": count(tokens.prompt),
        "of these cached": f"{count(tokens.cached)} ({percent(tokens.cached_share)})",
        "completion": count(tokens.completion),
        "completion tokens a second": count(tokens.completion_per_second),
    }
    per_pair = tokens.per_pair or {}
    return found | {f"{kind}, for one accepted pair": count(number) for kind, number in per_pair.items()}


# -- what came of it -------------------------------------------------------------------------------


def _accuracy(first: tuple[RunDir, ReportData], second: tuple[RunDir, ReportData]) -> Part:
    missing = "Neither run has been evaluated on its held-out pairs: music-ray evaluate CONFIG does."
    notes = [
        f"{one.label}: {matching.same_pairs(one, first[0], second[0], other)}"
        for one, other in matching.common_suites(first[1], second[1])
    ]
    rows = merged(_accuracies(first[1]), _accuracies(second[1]))
    caption = "Held-out pairs whose chosen side scores higher, with intervals over conversations"
    return Part(ACCURACY, caption, rows, missing, notes)


def _accuracies(data: ReportData) -> dict[str, str]:
    found: dict[str, str] = {}
    for suite in data.evaluation.suites if data.evaluation else ():
        for result in suite.models:
            found[f"{suite.label}, {result.model}"] = _estimate(result.overall)
            found[f"{suite.label}, {result.model}: mean margin"] = decimal(result.overall.mean_margin)
        if suite.verdict:
            found[f"{suite.label}: trained against untrained"] = f"{suite.verdict}, {suite.gain}"
    return found


def _estimate(one: Estimate) -> str:
    bounds = one.accuracy_low, one.accuracy_high
    return share(one.accuracy, *bounds, one.num_pairs, has_interval=one.has_interval)
