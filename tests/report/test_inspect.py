"""Pairs in the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from music_ray.errors import InputError
from music_ray.report.inspect import inspect_run
from music_ray.rundir import RunDir


def show(run: RunDir, width: int = 120, *, colour: bool = False, **options: object) -> str:
    """What inspect_run prints on a terminal of this width."""
    sink = io.StringIO()
    console = Console(
        file=sink, width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    inspect_run(run, console=console, **options)  # type: ignore[arg-type]
    return sink.getvalue()


def test_wide_terminal_has_the_branches_side_by_side(run: RunDir) -> None:
    lines = show(run, ids=["music-1"]).splitlines()
    assert any("chosen, turn 2" in line and "rejected, turn 2" in line for line in lines)
    assert any("turn 2: the branches part here" in line for line in lines)
    text = "\n".join(lines)
    assert "id music-1; source kitchen ; 3 turns; spoiled 2, 3; trained +1.00 against +0.00" in text
    assert text.count("I bought tomatoes.") == 1
    assert any("asked" in line and "How long should it simmer?" in line for line in lines)
    assert any("answered" in line and "How should I store it?" in line for line in lines)
    assert lines[-1].startswith("1 of 3 accepted pairs in ")


def test_narrow_terminal_stacks_them(run: RunDir) -> None:
    lines = show(run, width=60, ids=["music-1"]).splitlines()
    assert not any("chosen, turn 2" in line and "rejected, turn 2" in line for line in lines)
    order = [line.split("─")[1].strip() for line in lines if line.startswith("╭")]
    assert order == ["chosen, turn 2", "rejected, turn 2", "chosen, turn 3", "rejected, turn 3"]
    assert max(map(len, lines)) <= 60


def test_limit_and_count(run: RunDir) -> None:
    assert inspect_run(run, limit=2, console=Console(file=io.StringIO())) == 2
    assert show(run, limit=2).count("the branches part here") == 2


def test_refused_rollouts_show_their_gate(run: RunDir) -> None:
    text = show(run, refused=True)
    assert "looping: a line three times" in text
    assert "contrast unparsed" in text
    assert "3 of 3 refused rollouts in " in text
    assert show(run, refused=True, ids=["4"]).count("Rollout 1 of 1") == 1


def test_generated_text_cannot_steer_the_terminal(hostile_run: RunDir) -> None:
    plain = show(hostile_run, width=200, limit=3) + show(hostile_run, width=200, refused=True)
    for sign in ("\x1b", "\x07", "\u202e"):
        assert sign not in plain
    assert "␛[31mred␛]0;title␇ <U+202E>evil<U+202C>" in " ".join(plain.split())


def test_rich_markup_in_text_is_text(hostile_run: RunDir) -> None:
    coloured = show(hostile_run, width=400, colour=True, limit=1)
    assert "[bold red]rich[/]" in coloured
    assert "\x1b[31mred" not in coloured


def test_unknown_id_is_named(run: RunDir) -> None:
    with pytest.raises(InputError, match=r"pairs holds no pair with id 'nobody': take one from the report"):
        show(run, ids=["nobody"])
    with pytest.raises(InputError, match=r"gates\.jsonl names no rollout with id '77'"):
        show(run, ids=["77"], refused=True)


def test_nothing_to_show(make_run: Callable[..., RunDir]) -> None:
    with pytest.raises(InputError, match=r"small/pairs holds no pairs: run `music-ray pairs` first"):
        show(make_run())
    with pytest.raises(InputError, match=r"small/pairs/gates\.jsonl names no refused rollout"):
        show(make_run(), refused=True)
