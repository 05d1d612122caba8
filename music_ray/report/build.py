"""The report stage: one self-contained HTML page from the run folder alone.

The page loads nothing: style and script are inside it, and its Content-Security-Policy lets no other
script run and no request leave, so that generated text stays text even if an escape were missed.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from music_ray.paired_tests import FEWEST_CONTEXTS
from music_ray.report import figures, show, side_by_side
from music_ray.report.collect import ReportData, collect
from music_ray.report.evaluations import calibrations
from music_ray.report.rewardbench import PAPER
from music_ray.rundir import RunDir
from music_ray.visible import visible

PAGE = ("report", "index.html")

Key = TypeVar("Key")


def run_report(run: RunDir) -> dict[str, Any]:
    """Writes report/index.html.

    It can be called at any time: what has not run yet is said in a sentence.

    Returns:
        `counts` and `output` for the manifest.
    """
    data = collect(run)
    page = render(data)
    run.write_text(page, *PAGE)
    return {
        "counts": {
            "pairs_shown": len(data.pairs),
            "refused_shown": len(data.refused),
            "mistakes_shown": sum(len(one.readings) for one in data.mistakes),
            "evaluations_shown": len(data.any_models) + len(data.best_of_n),
            "charts": page.count('class="chart"'),
            "unreadable_parts": len(data.damage),
        },
        "output": hashlib.sha256(page.encode("utf-8")).hexdigest()[:16],
    }


def render(data: ReportData) -> str:
    """The page as HTML. The same data gives the same bytes."""
    script = _asset("page.js")
    suites = data.evaluation.suites if data.evaluation else []
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            data=data,
            suites=suites,
            style=Markup(_asset("page.css")),
            script=Markup(script),
            policy=_policy(script),
            training_charts=_safe(figures.training_charts(data.training)),
            audit_chart=_safe_one(figures.audit_chart(data.audit)),
            accuracy_chart=_safe_one(figures.accuracy_chart(data.evaluation)),
            turns_charts=_safe(
                {suite.name: chart for suite in suites if (chart := figures.turns_chart(suite)) is not None}
            ),
            paper=list(PAPER),
            sensitivity_charts=[
                _safe(figures.sensitivity_charts(index, found)) for index, found in enumerate(data.any_models)
            ],
            win_rate_charts=[
                [(match, Markup(chart)) for match, chart in figures.win_rate_charts(index, found)]
                for index, found in enumerate(data.best_of_n)
            ],
            calibrations=[
                (title, models, Markup(figures.reliability_chart(key, title, models)))
                for title, models, key in calibrations(data.evaluation, data.any_models)
            ],
            score_charts={
                suite.name: [(caption, Markup(chart)) for caption, chart in figures.score_charts(suite)]
                for suite in suites
            },
        )
    )


def render_side_by_side(first: tuple[RunDir, ReportData], second: tuple[RunDir, ReportData]) -> str:
    """The page of two runs as HTML. The same data gives the same bytes."""
    left, right = first[1], second[1]
    accuracy = side_by_side.ACCURACY
    chart = _safe_one(figures.accuracy_of_two(left.evaluation, right.evaluation))
    return (
        environment()
        .get_template("side_by_side.html.j2")
        .render(
            first=left,
            second=right,
            parts=side_by_side.parts(first, second),
            charts={} if chart is None else {accuracy: chart},
            style=Markup(_asset("page.css")),
            policy=_policy(""),
        )
    )


def environment() -> Environment:
    """Jinja with escaping always on; every text that is put in passes through music_ray.visible first."""
    jinja = Environment(
        loader=PackageLoader("music_ray", "report"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = ("count", "percent", "decimal", "signed", "known_signed", "duration")
    jinja.globals["fewest_contexts"] = FEWEST_CONTEXTS
    for name in (*numbers, "moment", "place", "words"):
        jinja.filters[name] = getattr(show, name)
    return jinja


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _safe(charts: dict[Key, str]) -> dict[Key, Markup]:
    return {name: Markup(chart) for name, chart in charts.items()}


def _safe_one(chart: str | None) -> Markup | None:
    return None if chart is None else Markup(chart)


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """A Content-Security-Policy that allows exactly this inline script, inline style, and no network."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
