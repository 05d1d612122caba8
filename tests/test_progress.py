"""Lines that a person reads while a stage works."""

import pytest

from music_ray.progress import Progress, duration, say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"), (8.24, "8.2 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.7, "1 min 00 s"), (200, "3 min 20 s"), (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"), (360_000, "100 h 00 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold]x[/bold] host:100:key " + "long " * 60
    say(line)
    assert capsys.readouterr().out == line + "\n"


def test_rate_and_time_left_go_by_this_start_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("music_ray.progress.time.monotonic", lambda: clock)
    progress = Progress("generate", 40, done=20, every_seconds=5)
    clock += 4
    progress.add(4, {"tokens": 400, "errors": 0})
    assert capsys.readouterr().out == ""
    clock += 6
    progress.add(6, {"tokens": 600, "errors": 1})
    assert capsys.readouterr().out == (
        "generate: 30/40 · 1.00/s · 100 tokens/s · errors 1 · 10 s left · 10 s so far\n"
    )
