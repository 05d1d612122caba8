"""A replication in several sittings: what is known is taken up, what is of something else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from music_ray.errors import ConfigError, InputError
from music_ray.replicate import command
from music_ray.replicate.clock import Clock
from music_ray.replicate.outcomes import Outcomes
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import SMOKE
from music_ray.replicate.scoring import Suites
from tests.replicate.test_outcomes import write_pairs

ARMS = ("A0", "A1")
N = 40


class World:
    """A replication of three training seeds whose rollouts, trainings and best-of-N are stand-ins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipe = Recipe(folder, {}, replace(SMOKE, seeds=3, arms=ARMS, best_of_n_prompts=4))
        (folder / "replication.json").write_text("{}")
        suite = write_pairs(folder / "S2.parquet", *(f"x{number}" for number in range(N)))
        self.suites = Suites.of({"S2": suite})
        self.files = {arm: write_pairs(folder / f"{arm}.parquet", arm, reply=arm) for arm in ARMS}
        self.outcomes = Outcomes.of(folder, self.suites, {arm: [file] for arm, file in self.files.items()})
        self.made: list[str] = []
        monkeypatch.setattr(command, "_suites", lambda *_: self.suites.files)
        monkeypatch.setattr(command, "write_arms", lambda *_: self.files)
        monkeypatch.setattr(command, "write_training_rates", lambda *_: None)
        monkeypatch.setattr(command, "trained_on", lambda recipe, arm, file: {arm: file})
        monkeypatch.setattr(command, "new_first_messages", lambda *_: None)
        shares = dict.fromkeys(("lengths", "replies", "likeness", "users"), 0.5)
        monkeypatch.setattr(command, "shortcuts", lambda *_: shares)
        monkeypatch.setattr(command, "bring_to_outcomes", self.bring)

    def right(self, arm: str, seed: int) -> np.ndarray:
        """What an arm of a training seed gets right: more with every seed, A1 five pairs more than A0."""
        return np.arange(N) < 10 + 5 * seed + 5 * (arm == "A1")

    def write(self, arm: str, seed: int) -> None:
        self.outcomes.write(arm, seed, {"S2": self.right(arm, seed)})

    def write_picks(self, seed: int) -> None:
        rows = [
            {"id": one, "selection": "whole", "n": n, "value": 1.0 if one < seed else 0.5}
            for one in range(4)
            for n in (2, 4)
        ]
        self.outcomes.write_picks(seed, pa.Table.from_pylist(rows))

    def bring(self, recipe: Any, outcomes: Outcomes, files: Any, seed: int, tools: Any, clock: Clock) -> None:
        for arm in files:
            if not outcomes.has(arm, seed):
                self.made.append(f"{arm}-{seed}")
                self.write(arm, seed)
        if not outcomes.has_picks(seed):
            self.made.append(f"picks-{seed}")
            self.write_picks(seed)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_it_goes_on_and_tells_of_whole_training_seeds_alone(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        for arm in ARMS:
            world.write(arm, seed)
        world.write_picks(seed)
    world.write("A0", 2)
    told = []
    write_text = command.write_text

    def write(path: Path, text: str) -> None:
        told.append((path.name, json.loads(text)["training_seeds"] if path.name == "results.json" else None))
        write_text(path, text)

    monkeypatch.setattr(command, "write_text", write)
    result = command._replicate(world.recipe, None)  # type: ignore[arg-type]
    assert world.made == ["A1-2", "picks-2"]
    assert told == [
        (name, seeds)
        for seeds_now in (2, 3)
        for name, seeds in (("results.json", seeds_now), ("table.md", None), ("breakdown.md", None))
    ]
    assert result["accuracy"]["S2"]["A0"]["value"] == pytest.approx(np.mean([10, 15, 20]) / N)
    assert result["differences"]["S2"]["A1 − A0"]["value"] == pytest.approx(5 / N)
    assert result["differences_by_seed"]["S2"]["A1 − A0"] == pytest.approx([5 / N] * 3)
    (h5,) = [one for one in result["findings"] if one["name"] == "H5"]
    assert h5["by_seed"]["N = 2"] == pytest.approx([0.5, 0.625, 0.75])
    said = capsys.readouterr().out
    assert f"replicate: {tmp_path / 'table.md'}, 2 of 3 training seeds\n" in said
    assert said.count("| suite | pairs | A0 | A1 |") == 1 and (tmp_path / "table.md").read_text() in said
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(result))
    assert set(json.loads((tmp_path / "seconds.json").read_text())) >= {"results"}


def start(out: Path, *words: str, config: str = "configs/miniature.yaml", scale: str = "full") -> Recipe:
    return command._recipe(config, scale, str(out), words)


def test_what_the_user_changes_of_the_scale_is_another_replication(tmp_path: Path) -> None:
    """train.steps=1000 is what the file says, and 1,480 what the scale made of it."""
    start(tmp_path / "a")
    record = json.loads((tmp_path / "a" / "replication.json").read_text())
    assert "overrides of the scale" not in record
    start(tmp_path / "a", "train.steps=1480")  # the scale's own
    with pytest.raises(ConfigError) as raised:
        start(tmp_path / "a", "train.steps=1000")
    assert str(raised.value) == (
        f"{tmp_path / 'a'} holds a replication of another overrides of the scale: name another --out"
    )
    start(tmp_path / "b", "train.steps=1000")
    record = json.loads((tmp_path / "b" / "replication.json").read_text())
    assert record["overrides of the scale"] == {"train.steps": 1000}
    with pytest.raises(ConfigError, match="another overrides of the scale"):
        start(tmp_path / "b")


def test_the_published_record_is_that_of_this_program() -> None:
    """Else the full run's outcomes could not be gone on from."""
    published = Path("docs/explanation/miniature-full/replication.json")
    assert start(published.parent).scale.name == "full"


def test_best_of_n_of_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(Path("configs/miniature.yaml").read_text() + "\nbest_of_n:\n  n: [2, 4]\n")
    with pytest.raises(ConfigError) as raised:
        start(tmp_path / "out", config=str(file))
    assert str(raised.value) == f"{file}: a replication sets best_of_n itself; leave the section out"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b'{"scale": ', b"[]", b"\xff\xfe"])
def test_damaged_records_are_said(tmp_path: Path, content: bytes) -> None:
    record = tmp_path / "replication.json"
    record.write_bytes(content)
    with pytest.raises(InputError) as raised:
        start(tmp_path)
    assert str(raised.value).startswith(f"{record} is damaged (")
    assert str(raised.value).endswith("): put the file back, or name another --out")
    seconds = tmp_path / "seconds.json"
    seconds.write_bytes(content)
    with pytest.raises(InputError, match=r"remove it: it says only how long the parts took$"):
        Clock(seconds)
