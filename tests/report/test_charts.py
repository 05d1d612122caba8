"""Charts take the page's colours and font, and bring nothing from outside."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

from music_ray.report import charts
from music_ray.report.charts import ALTER, BAD, GOOD, INK, Interval, Line


def draw() -> dict[str, str]:
    """One chart of each kind."""
    interval = Interval("music, trained", 0.75, 0.5, 0.9, INK)
    spoiled = Interval("0", 1.25, 1.0, 1.5, ALTER)
    return {
        "line": charts.line_chart("line", "loss <by> step", [1, 2, 3], [Line("loss", [0.7, math.nan, 0.5])]),
        "long": charts.line_chart(
            "long",
            "rewards",
            list(range(100)),
            [Line("chosen", [0.0] * 100, GOOD), Line("rejected", [1.0] * 100, BAD)],
            reference=0.5,
        ),
        "interval": charts.interval_chart("interval", "accuracy", [interval], "accuracy"),
        "turns": charts.turns_chart("turns", "by turns", [("trained", [(2, interval), (5, interval)])]),
        "falls": charts.fall_chart(
            "falls",
            "falls",
            [("foreign", [(0, interval), (2, interval)]), ("contrast", [(0, spoiled)])],
        ),
        "bars": charts.bar_chart("bars", "wins", [("by turn", [(2, interval), (8, interval)])]),
        "sure": charts.reliability_chart(
            "sure", "calibration", [("A", INK, [(0.6, 0.5, 10), (0.9, 1.0, 30)]), ("B", ALTER, [])]
        ),
        "hist": charts.histogram(
            "hist", "scores", [Line("chosen", [1.0, 2.0, 2.5], GOOD)], "score", zero=True
        ),
        "flat": charts.histogram("flat", "scores", [Line("chosen", [1.0, 1.0])], "costs $5 or $6"),
    }


def test_sentinel_colours_become_variables() -> None:
    drawn = draw()
    for name, svg in drawn.items():
        assert "#0a0b" not in svg, name
        # Nothing but the page's colours: a fixed black would be invisible in dark mode.
        assert re.findall(r"(?:fill|stroke): ?#[0-9a-f]+", svg) == [], name
    assert "var(--bad)" in drawn["long"]
    assert "var(--good)" in drawn["hist"]
    assert "var(--alter)" in drawn["falls"]


def test_charts_bring_no_style_sheet_no_metadata_and_no_foreign_reference() -> None:
    for svg in draw().values():
        assert "<style" not in svg
        assert "<metadata" not in svg
        references = re.findall(r'(?:href|src)="([^"]*)"', svg) + re.findall(r"url\(([^)]*)\)", svg)
        assert all(reference.startswith("#") for reference in references)
        assert set(re.findall(r"https?://[^\"]+", svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_ids_are_unique_over_the_charts_of_a_page() -> None:
    ids = [found for svg in draw().values() for found in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))


def test_charts_are_labelled_and_scale() -> None:
    root = ET.fromstring(draw()["line"])
    assert root.attrib["role"] == "img"
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert root.attrib["aria-labelledby"] == "line-title line-desc"
    assert [child.text for child in root[:2]] == ["loss <by> step", "3 steps. loss ends at 0.5."]


def test_text_stays_text_in_the_pages_font() -> None:
    svg = draw()["flat"]
    assert ">costs $5 or $6</text>" in svg
    assert "DejaVu" not in svg
    assert "font-size: 8px" in svg


def test_what_cannot_be_seen_is_said() -> None:
    drawn = draw()
    descriptions = {name: ET.fromstring(svg)[1].text for name, svg in drawn.items()}
    assert descriptions["falls"] == (
        "foreign, 0 before the last: 0.75; foreign, 2 before the last: 0.75; "
        "contrast, 0 before the last: 1.25."
    )
    assert (
        descriptions["bars"] == "by turn, N = 2: 0.75 from 0.5 to 0.9; by turn, N = 8: 0.75 from 0.5 to 0.9."
    )
    assert descriptions["sure"] == "A: 0.5 at 0.6 (10 pairs); A: 1 at 0.9 (30 pairs)."


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert draw() == draw()
