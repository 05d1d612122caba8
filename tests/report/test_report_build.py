"""The page: complete, self-contained, and deaf to what is planted in its texts."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser

from music_ray import schema
from music_ray.report.build import run_report
from music_ray.rundir import RunDir
from music_ray.visible import visible
from tests.report.report_folder import HOSTILE, make_pair, write_earlier_evaluation

SVG_SHAPES = {"path", "g", "use", "text"}
"""Their number follows the numbers that a chart draws."""
ALLOWED_EMPTY = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; text of scripts and styles is kept apart."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ALLOWED_EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def text(self) -> str:
        """All text with its white space folded."""
        return " ".join(" ".join(self.words).split())


def build(run: RunDir) -> Page:
    """The page of a run, built and parsed."""
    run_report(run)
    return read(run)


def read(run: RunDir) -> Page:
    """The page of a run, parsed; every tag is closed."""
    page = Page(run.read_text("report", "index.html"))
    assert page.open == []
    return page


def test_counts_for_the_manifest(run: RunDir) -> None:
    result = run_report(run)
    assert result["counts"] == {
        "pairs_shown": 3,
        "refused_shown": 3,
        "mistakes_shown": 5,
        "evaluations_shown": 2,
        "charts": 23,
        "unreadable_parts": 0,
    }
    assert re.fullmatch(r"[0-9a-f]{16}", result["output"])


def test_the_same_folder_gives_the_same_page(run: RunDir) -> None:
    first = run_report(run)
    run.start_stage("report")
    run.finish_stage("report", first["output"], 2.0, counts=first["counts"])
    assert run_report(run) == first


def test_the_first_minute(finished: RunDir) -> None:
    text = read(finished).text
    assert "MUSIC pairs: 8 held out, from 3 conversations Better: +75.0 points" in text
    assert "trained 87.5% 75.0% to 100.0% untrained 12.5% 0.0% to 25.0%" in text
    assert "Preference pairs of D: 4 held out, from 3 conversations Not settled: +50.0 points" in text
    assert (
        "with 95% intervals. Trained − untrained: +75.0 points (+50.0 to +100.0), p = 0.0312 by exchanges of "
        "whole contexts. Pairs that training moved to the right order: 6; to the wrong one: 0." in text
    )
    assert "3 accepted pairs 2 refused by a gate" in text
    assert "generate done 45.0 s 1 min 00 s" in text


def test_the_evaluation_says_what_pairs_are_like_and_what_length_has_to_do_with_it(finished: RunDir) -> None:
    text = read(finished).text
    assert "MUSIC pairs all trained 4 87.5% 75.0% to 100.0% +0.500 −0.250 to +1.250 0 +0.25" in text
    assert "3 turns trained 3 87.5%" in text and "source kitchen trained 3 87.5% 75.0% to 100.0%" in text
    assert "source web trained 1 87.5% too few contexts +0.500 0 +0.25" in text
    assert (
        "MUSIC pairs: trained − untrained is +75.0 points (+50.0 to +100.0), p = 0.0312 by exchanges of "
        "whole contexts." in text
    )


def test_the_page_of_an_earlier_evaluation(run: RunDir) -> None:
    write_earlier_evaluation(run)
    run_report(run)
    text = read(run).text
    assert "MUSIC pairs: 8 held out, from 3 conversations Better: +75.0 points" in text
    assert "MUSIC pairs: trained − untrained is +75.0 points (no interval recorded), p = 0.031" in text
    assert "MUSIC pairs all trained 4 87.5% 75.0% to 100.0% +0.500 −0.250 to +1.250 0 —" in text


def test_pairs_are_shown_with_their_instruction_beside_the_spoiled_turn(finished: RunDir) -> None:
    page = read(finished)
    articles = [values for tag, values in page.tags if tag == "article" and "data-reason" in values]
    assert [values["data-reason"] for values in articles] == ["accepted"] * 3 + [
        "contrast_unparsed",
        "cut_off",
        "looping",
    ]
    assert page.text.count("Turn 2: the branches part here") == 5 + 5  # and the mistakes
    assert (
        "Rejected turn 2, spoiled by joint The user asked How long should it simmer? "
        "Answered instead How should I store it? Assistant Store it in a glass jar." in page.text
    )
    assert "Rejected turn 3, spoiled by joint at attempt 2 User But how long on the stove?" in page.text
    assert page.text.count("I bought tomatoes. What else for a sauce?") == 6 + 5
    assert "looping: a line three times" in page.text
    assert "The conversation so far; no two sides to compare" in page.text


def test_nothing_has_run_yet(make_run: Callable[..., RunDir]) -> None:
    run = make_run("new")
    assert run_report(run)["counts"]["charts"] == 0
    text = build(run).text
    for sentence in (
        "Not known yet",
        "the evaluate stage has not finished.",
        "No stage has set aside, failed or refused anything so far.",
        "The generate stage has recorded no tokens yet: music-ray generate does.",
        "No training steps yet: logs/train.jsonl is missing or empty.",
        "No evaluation yet: the evaluate stage has not run.",
        "No pairs yet: the pairs stage has not run.",
        "The gates have not run yet: music-ray pairs runs them.",
        "No rollouts yet: music-ray generate writes them.",
        "The manifest records no versions.",
    ):
        assert sentence in text


def test_any_prefix_of_the_stages_has_a_page(make_run: Callable[..., RunDir], run: RunDir) -> None:
    for folder in ("scores", "logs", "evals", "pairs", "rollouts", "seeds"):
        run.clear(folder)
        assert build(run).text


def test_an_accepted_set_of_no_pairs_is_said(run: RunDir) -> None:
    run.write_table(schema.to_table([], schema.PAIR_SCHEMA), "pairs", "train-00000.parquet")
    assert "The pairs stage accepted no pair." in build(run).text


def test_damage_is_said_on_the_page(run: RunDir) -> None:
    run.write_bytes(b"nonsense", "pairs", "train-00000.parquet")
    assert run_report(run)["counts"]["unreadable_parts"] == 1
    assert "pairs could not be read: " in build(run).text


def test_planted_text_stays_text(finished: RunDir, hostile: RunDir) -> None:
    clean, planted = read(finished), read(hostile)
    # The same elements with the same attribute names: nothing planted became markup.
    shape = [(tag, sorted(values)) for tag, values in clean.tags if tag not in SVG_SHAPES]
    assert [(tag, sorted(values)) for tag, values in planted.tags if tag not in SVG_SHAPES] == shape
    text = " ".join(visible(HOSTILE).split())
    assert "{{ 7 * 7 }} {% for %} &amp;" in text
    assert f"Twenty minutes over low heat. {text}" in planted.text
    assert f"How should I store it? {text}" in planted.text
    assert f"cut off{text}".replace("_", " ") in planted.text
    assert f"source kitchen {text}" in planted.text


def test_control_characters_do_not_reach_the_page(hostile: RunDir) -> None:
    source = hostile.read_text("report", "index.html")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", source)
    assert "␛[31mred" in source


def test_the_page_allows_no_network_and_only_its_own_script(finished: RunDir) -> None:
    page = read(finished)
    policy = next(values["content"] for _, values in page.tags if "http-equiv" in values)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert policy.endswith("img-src data:; base-uri 'none'; form-action 'none'")
    links = [value for _, values in page.tags for key, value in values.items() if key in ("href", "src")]
    assert all(link and link.startswith(("#", "data:,")) for link in links)


def test_every_part_has_its_heading_and_tables_their_captions(finished: RunDir) -> None:
    page = read(finished)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption")
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(ids) == len(set(ids))
    labels = [values["aria-labelledby"] or "" for _, values in page.tags if "aria-labelledby" in values]
    assert {one for label in labels for one in label.split()} <= set(ids)


def test_the_resolved_configuration_is_the_folders(run: RunDir) -> None:
    run.write_text("name: from-the-folder # <b>\n", "config.yaml")
    run_report(run)
    assert html.escape("name: from-the-folder # <b>") in run.read_text("report", "index.html")


def test_a_pair_in_another_script_is_kept_as_it_is(run: RunDir) -> None:
    pair = make_pair(7, text="שלום 漢字 👩‍🍳")
    run.write_table(schema.to_table([pair], schema.PAIR_SCHEMA), "pairs", "train-00001.parquet")
    assert "Store it in a glass jar. שלום 漢字 👩‍🍳" in build(run).text


def test_the_report_needs_neither_torch_nor_ray_nor_another_stage() -> None:
    code = (
        "import sys, music_ray.report.build, music_ray.report.inspect\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib', 'datasets'} & set(sys.modules)\n"
        "stages = [name for name in sys.modules if name.startswith(('music_ray.generate', 'music_ray.reward',"
        " 'music_ray.evaluate'))]\n"
        "sys.exit(f'{heavy} {stages}' if heavy or stages else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
