"""The shortcut audit on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from music_ray.report.audit import Auc, MarkerRow, ViewRow, read_audit
from music_ray.report.build import run_report
from music_ray.report.collect import collect
from music_ray.rundir import RunDir
from music_ray.visible import visible
from tests.report.report_folder import HOSTILE
from tests.report.test_report_build import build


def make_view(auc: float | None, low: float | None, high: float | None, text: str = "") -> dict[str, Any]:
    feature = {"name": f"replies: words{text}", "coefficient": -1.5, "auc": 0.12}
    features = [] if auc is None else [feature]
    return {"auc": auc, "low": low, "high": high, "reason": "" if auc else "too few", "features": features}


def write_audit(run: RunDir, text: str = "", **changes: Any) -> None:
    """audit/audit.json as the audit writes it."""
    views = {"surface/whole": make_view(0.83, 0.75, 0.9, text), "surface/user": make_view(None, None, None)}
    likeness = {"num_pairs": 3, "equal": 0.25, "word_overlap": 0.5, "cosine": 0.75}
    of_d = {
        "views": {"surface/whole": make_view(0.55, 0.45, 0.65), "surface/user": make_view(None, None, None)}
    }
    document = {
        "audit_version": 1,
        "pairs_output": "digest-pairs",
        "origin": "D_MUSIC",
        "num_pairs": 300,
        "num_available": 300,
        "num_conversations": 200,
        "max_auc": 0.7,
        "confidence": 0.95,
        "views": views,
        "markers": [
            {
                "name": "complaints",
                "role": "user",
                "chosen": {"messages": 0, "with_marker": 0},
                "rejected": {"messages": 40, "with_marker": 10},
            }
        ],
        "turns": [{"turn": 1, "user": None, "reply": likeness}],
        "verdict": f"A linear model tells chosen from rejected.{text}",
        "warnings": [f"surface/whole: AUC 0.83{text}"],
        "remedies": ["lower pairs.gates.max_length_ratio"],
        "notes": ["complaints are in 25.0% of the user messages"],
        "preferences": of_d,
    }
    run.write_text(json.dumps(document | changes), "audit", "audit.json")


def test_the_section_holds_music_beside_d(run: RunDir) -> None:
    write_audit(run)
    audit = read_audit(run)
    assert audit is not None
    assert audit.views == [
        ViewRow(
            "surface/whole",
            Auc(0.83, 0.75, 0.9),
            Auc(0.55, 0.45, 0.65),
            True,
            "replies: words (less in chosen, alone 0.12)",
        ),
        ViewRow("surface/user", None, None, False, "too few"),
    ]
    assert audit.markers == [MarkerRow("complaints", "user messages", (0, 0), (10, 40))]
    assert (audit.has_preferences, audit.is_outdated) == (True, False)
    run.finish_stage("pairs", "another-digest", 1.0)
    again = read_audit(run)
    assert again is not None and again.is_outdated


def test_the_page_shows_the_audit(run: RunDir) -> None:
    charts = run_report(run)["counts"]["charts"]
    assert (
        f"No audit yet: music-ray audit {run.display()} looks for what gives the label away."
        in build(run).text
    )
    write_audit(run)
    assert run_report(run)["counts"]["charts"] == charts + 1
    text = build(run).text
    for sentence in (
        "A linear model tells chosen from rejected.",
        "surface/whole 0.83 0.75 to 0.90 0.55 0.45 to 0.65 replies: words (less in chosen, alone 0.12)",
        "surface/user — — too few",
        "complaints user messages — 10 25.0%",
        "1 — — 0.50 25.0%",
        "lower pairs.gates.max_length_ratio",
    ):
        assert sentence in text
    assert "The pairs have been made again" not in text


def test_an_audit_without_d_or_without_any_number(run: RunDir) -> None:
    nothing = {"surface/whole": make_view(None, None, None)}
    write_audit(run, preferences=None, views=nothing, turns=[])
    audit = read_audit(run)
    assert audit is not None and not audit.has_preferences
    assert "surface/whole — — too few" in build(run).text


def test_planted_text_stays_text(run: RunDir) -> None:
    write_audit(run, text=HOSTILE)
    page = build(run)
    assert f"replies: words{' '.join(visible(HOSTILE).split())} (less in chosen, alone 0.12)" in page.text
    assert not any(tag == "img" for tag, _ in page.tags)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "audit/audit.json could not be read: it is no JSON object: run `music-ray audit "),
        (
            '{"audit_version": 2}',
            "audit/audit.json could not be read: it has version 2, but this music_ray reads 1",
        ),
        ('{"audit_version": 1, "pairs_output": ""}', "audit/audit.json could not be read: it is damaged ("),
    ],
)
def test_a_damaged_audit_costs_its_section_alone(
    make_run: Callable[..., RunDir], run: RunDir, content: str, said: str
) -> None:
    run.write_text(content, "audit", "audit.json")
    data = collect(run)
    assert data.audit is None and data.evaluation is not None
    assert len(data.damage) == 1 and data.damage[0].startswith(said)
