"""Text of others in a terminal and in a log: nothing of it acts, and it begins no line of its own."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray import cli
from music_ray.errors import InputError
from music_ray.progress import say
from music_ray.visible import on_one_line, visible, visible_log, visible_values

ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SIGNS = st.sampled_from("a[31m;\n\t\r\x1b\x07\x9b\x85\u202e\u2028\ud800")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain äöü 漢字 👩‍🍳\tand\nlines", "plain äöü 漢字 👩‍🍳\tand\nlines"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("\x00\x7f\x9b", "␀␡<U+009B>"),
        ("\u202eevil\u2069", "<U+202E>evil<U+2069>"),
        ("half \ud800", "half <U+D800>"),
    ],
)
def test_what_would_act_is_shown(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_on_one_line_nothing_begins_a_new_one() -> None:
    assert on_one_line("ok\r\npairs: done\tnow\u2028x") == "ok␊pairs: done␉now<U+2028>x"


def test_a_document_keeps_its_shape_and_numbers() -> None:
    document = {"a\n": ["\x1b", 1, None, {"b": ("c\x07", 0.5, True)}]}
    assert visible_values(document) == {"a␊": ["␛", 1, None, {"b": ("c␇", 0.5, True)}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[36m(worker)\x1b[0m says\n", "\x1b[36m(worker)\x1b[0m says\n"),
        ("\x1b[2K\x1b[1Agone \x1b]0;title\x07", "␛[2K␛[1Agone ␛]0;title␇"),
        ("10%\r20%\r\n", "10%\n20%\n"),
    ],
)
def test_a_jobs_log_keeps_its_colours_alone(text: str, expected: str) -> None:
    assert visible_log(text) == expected


@given(st.text(alphabet=SIGNS, max_size=40))
def test_nothing_that_acts_is_left(text: str) -> None:
    assert not ACTS.search(visible(text))
    assert len(on_one_line(text).splitlines()) <= 1
    assert not ACTS.search(re.sub("\x1b\\[[0-9;]*m", "", visible_log(text)))
    assert visible(visible(text)) == visible(text) and visible_log(visible_log(text)) == visible_log(text)


def test_what_a_stage_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("evaluate: scoring of \x1b[2J\x1b]0;evil\x07\rmix: done")
    assert capsys.readouterr().out == "evaluate: scoring of ␛[2J␛]0;evil␇␍mix: done\n"


def test_neither_can_an_errors_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise InputError("the endpoint said: \x1b[1A\x1b[2Kall is well\nremedy: try again")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "music-ray: the endpoint said: ␛[1A␛[2Kall is well\nmusic-ray: remedy: try again\n"
    )
    assert "signal" in sys.modules
