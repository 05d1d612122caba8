"""The page in a real browser: headless Chromium, from a file, without any network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from music_ray.report.command import report_of_two
from music_ray.rundir import RunDir

pytestmark = pytest.mark.slow

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; where tests must not be skipped (CI) its absence is a failure."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("no Chromium on this machine, and CI=true: install chromium")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """A page that was opened, and everything that it complained about or asked for."""

    def __init__(self, browser: Any, run: RunDir, file: str = "index.html", **options: Any) -> None:
        self.address = Path(run.path("report", file)).as_uri()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(self.address)

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def ratio(self, selector: str) -> float:
        """WCAG contrast of an element's text against what is painted behind it."""
        return self.page.evaluate(CONTRAST, selector)


CONTRAST = """
(selector) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const part = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(rgb[0]) + 0.7152 * part(rgb[1]) + 0.0722 * part(rgb[2]);
  };
  let element = document.querySelector(selector);
  const ink = light(parse(getComputedStyle(element).color));
  let behind = parse(getComputedStyle(element).backgroundColor);
  while (behind.length === 4 && behind[3] === 0) {
    element = element.parentElement;
    behind = parse(getComputedStyle(element).backgroundColor);
  }
  const paper = light(behind);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_opens_cleanly(browser: Any, hostile: RunDir, scheme: str, width: int) -> None:
    viewport = {"width": width, "height": 900}
    visit = Visit(browser, hostile, color_scheme=scheme, viewport=viewport)
    page = visit.page
    assert page.locator("article.pair[data-reason]").count() == 6
    assert page.locator("article.pair:not([data-reason])").count() == 5
    assert page.locator("article.pair[data-reason=accepted] .instruction").count() == 6
    assert page.locator("svg.chart").count() == 23
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Scrolling may not bring anything up either: fonts, pictures, lazy parts.
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_timeout(100)
    assert visit.complaints == []
    assert visit.requests == [visit.address]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_two_runs_opens_cleanly(
    browser: Any, finished: RunDir, hostile: RunDir, scheme: str, width: int
) -> None:
    report_of_two(hostile, finished, [], None)
    viewport = {"width": width, "height": 900}
    visit = Visit(browser, hostile, "against-small.html", color_scheme=scheme, viewport=viewport)
    page = visit.page
    assert page.locator("h1").inner_text() == "hostile against small"
    assert page.locator("svg.chart").count() == 1
    assert page.locator("table").count() == 9 - page.locator("p.none").count()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for selector in ("caption", "tbody th", "td", "p.dim"):
        assert visit.ratio(selector) >= 4.5, selector
    assert visit.complaints == []
    assert visit.requests == [visit.address]
    page.close()


def test_sides_stand_side_by_side_when_there_is_room(browser: Any, finished: RunDir) -> None:
    visit = Visit(browser, finished, viewport={"width": 1280, "height": 900})
    places = [visit.page.locator(f".side.{name}").first.bounding_box() for name in ("chosen", "rejected")]
    assert places[0]["y"] == places[1]["y"]
    assert places[0]["x"] + places[0]["width"] <= places[1]["x"]
    visit.page.set_viewport_size({"width": 400, "height": 900})
    places = [visit.page.locator(f".side.{name}").first.bounding_box() for name in ("chosen", "rejected")]
    assert places[0]["x"] == places[1]["x"]
    assert places[0]["y"] + places[0]["height"] <= places[1]["y"]
    visit.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Any, finished: RunDir, scheme: str) -> None:
    visit = Visit(browser, finished, color_scheme=scheme)
    for selector in (
        "body",
        "caption",
        ".verdict.better .answer",
        ".side.chosen h4",
        ".side.rejected h4",
        ".contrast .instruction",
        ".contrast dt",
        ".shared .text",
        ".refusal",
        "details.shared > summary",
    ):
        assert visit.ratio(selector) >= 4.5, selector
    visit.page.close()


def test_the_two_schemes_have_different_colours_in_page_and_charts(browser: Any, finished: RunDir) -> None:
    colours = []
    for scheme in ("light", "dark"):
        visit = Visit(browser, finished, color_scheme=scheme)
        script = "(selector) => getComputedStyle(document.querySelector(selector))"
        paper = visit.page.evaluate(f"({script})('body').backgroundColor")
        ink = visit.page.evaluate(f"({script})('svg.chart text').fill")
        colours.append((paper, ink))
        visit.page.close()
    assert colours == [("rgb(251, 250, 247)", "rgb(93, 98, 105)"), ("rgb(21, 23, 26)", "rgb(158, 164, 171)")]


def test_filter_by_kind_and_words(browser: Any, finished: RunDir) -> None:
    visit = Visit(browser, finished)
    page = visit.page
    shown = page.locator("article.pair[data-reason]:visible")
    assert page.locator("#shown").inner_text() == "6 of 6 shown"
    page.select_option("#reason", "looping")
    assert shown.count() == 1
    page.select_option("#reason", "")
    page.fill("#query", "a jar keeps for a week. 2")
    assert (shown.count(), page.locator("#shown").inner_text()) == (1, "1 of 6 shown")
    page.fill("#query", "nothing says this")
    assert shown.count() == 0
    assert page.locator("article.pair:not([data-reason]):visible").count() == 1  # mistakes stay as they are
    assert visit.complaints == []
    page.close()


def test_the_page_is_complete_without_scripts(browser: Any, finished: RunDir) -> None:
    visit = Visit(browser, finished, java_script_enabled=False)
    assert visit.page.locator("article.pair[data-reason]:visible").count() == 6
    assert not visit.page.locator("#tools").is_visible()
    visit.page.close()


def test_a_script_that_slipped_through_would_not_run(browser: Any, finished: RunDir, tmp_path: Path) -> None:
    """The second line of defence: the policy stops inline scripts and handlers that are not the page's."""
    source = finished.read_text("report", "index.html")
    planted = "<script>alert(1)</script><img src=x onerror=alert(2)></main>"
    (tmp_path / "planted.html").write_text(source.replace("</main>", planted), encoding="utf-8")
    dialogs: list[str] = []
    page = browser.new_page()
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto((tmp_path / "planted.html").as_uri())
    page.wait_for_timeout(200)
    assert dialogs == []
    assert page.locator("#shown").inner_text() == "6 of 6 shown"
    page.close()
