"""Below ten contexts no interval is shown: neither in the tables nor in the charts."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from music_ray.report import figures
from music_ray.report.collect import collect
from music_ray.report.numbers import Span
from music_ray.report.paired import Paired
from music_ray.rundir import RunDir
from tests.report.test_report_build import build

CHARTS = {"accuracy": 4, "two": 4, "turns": 4, "falls": 2}
"""How many intervals each has: two suites by two models, or runs; two numbers of turns; two distances."""


@pytest.fixture
def few(run: RunDir) -> RunDir:
    """A finished run, both evaluations of which are of nine contexts."""
    for file in (("evals", "pairwise.json"), ("evaluations", "dev", "evaluation.json")):
        run.write_text(run.read_text(*file).replace('"num_contexts": 12', '"num_contexts": 9'), *file)
    return run


def drawn(run: RunDir) -> dict[str, str]:
    """The charts that have intervals over contexts."""
    data = collect(run)
    assert data.evaluation is not None
    found = {
        "accuracy": figures.accuracy_chart(data.evaluation),
        "two": figures.accuracy_of_two(data.evaluation, data.evaluation),
        "turns": figures.turns_chart(data.evaluation.suites[1]),
        "falls": figures.sensitivity_charts(0, data.any_models[0])["dev", "B"],
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def num_whiskers(chart: str) -> int:
    """Lines that are drawn as intervals are: nothing else is seen through."""
    return chart.count("stroke-opacity: 0.45") + chart.count("stroke-opacity: 0.55")


def test_charts_have_no_whiskers(few: RunDir) -> None:
    assert {name: num_whiskers(chart) for name, chart in drawn(few).items()} == dict.fromkeys(CHARTS, 0)
    enough = drawn(_with(few, 10))
    assert {name: num_whiskers(chart) for name, chart in enough.items()} == CHARTS


def _with(run: RunDir, num_contexts: int) -> RunDir:
    for file in (("evals", "pairwise.json"), ("evaluations", "dev", "evaluation.json")):
        text = run.read_text(*file).replace('"num_contexts": 9', f'"num_contexts": {num_contexts}')
        run.write_text(text, *file)
    return run


def test_what_is_not_drawn_is_not_said(few: RunDir) -> None:
    chart = drawn(few)["accuracy"]
    assert ET.fromstring(chart)[1].text == (
        "preferences, trained 0.75; preferences, untrained 0.25; music, trained 0.875; "
        "music, untrained 0.125."
    )


def test_the_page_shows_none(few: RunDir) -> None:
    text = build(few).text
    assert "trained 87.5% too few contexts untrained 12.5% too few contexts Share of pairs" in text
    assert "MUSIC pairs all trained 4 87.5% too few contexts +0.500 0 +0.25" in text
    assert "dev all A 4 75.0% too few contexts 0 1 +0.25" in text
    assert "dev: A − B is +50.0 points, p = 0.0312 by exchanges of whole contexts." in text
    assert "last 40 +2.500 +1.25 75.0% falls" in text


def test_two_models_on_few_contexts() -> None:
    found = Paired(Span(0.5, 0.25, 0.75), 0.03125, 9)
    assert found.text == (
        "+50.0 points (too few contexts for an interval), p = 0.0312 by exchanges of whole contexts"
    )
    assert Paired(found.difference, 0.03125, 10).text.startswith("+50.0 points (+25.0 to +75.0), p = ")
    assert Paired(found.difference, 0.03125, 0).text.startswith("+50.0 points (+25.0 to +75.0), p = ")
    assert Paired(Span(0.5), 0.03125, 9).text.startswith("+50.0 points (no interval recorded), p = ")
