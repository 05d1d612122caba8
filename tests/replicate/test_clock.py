"""Seconds of several starts."""

from pathlib import Path

from music_ray.replicate.clock import Clock


def test_seconds_of_an_earlier_start_are_added_to(tmp_path: Path) -> None:
    (tmp_path / "seconds.json").write_text('{"training": 100.0, "world": 7.0}')
    clock = Clock(tmp_path / "seconds.json")
    clock.lap("training")
    clock.lap("scoring")
    again = Clock(tmp_path / "seconds.json").seconds
    assert 100.0 <= again.pop("training") < 101.0
    assert 0.0 <= again.pop("scoring") < 1.0
    assert again == {"world": 7.0}
