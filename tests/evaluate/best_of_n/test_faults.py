"""The whole command on a real Ray with real reward models, its driver killed in both jobs.

What is counted at the end is counted again here, from the rows: the checker knows a winner of most picks.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from music_ray.config.load import resolve_config
from music_ray.evaluate.best_of_n.picks import RANDOM
from music_ray.jobs.shards import read_index
from music_ray.rundir import RunDir
from music_ray.schema import Message
from tests.evaluate.best_of_n.rules import vowels
from tests.generate.faults import none_left
from tests.score.conftest import make_reward_folder

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[3]
PROMPTS = 240
CONVERSATIONS = ("conversations", "shards")


class Command:
    """The command as a process, which can be killed."""

    def __init__(self, folder: Path, models: list[Path]) -> None:
        self.folder = folder
        values = {
            "name": "faulty",
            "engine": {"kind": "scripted", "max_num_seqs": 16},
            "generate": {"flush_rows": 8, "flush_seconds": 0.5},
            "best_of_n": {
                "prompts": str(folder / "prompts.jsonl"),
                "n": [2, 4],
                "turns": 2,
                "repeat": 10,
                "judge": {
                    "engine": {"kind": "scripted", "model": "a judge", "max_num_seqs": 16},
                    "sampling": {"temperature": 0.7},
                },
                "checker": "tests.evaluate.best_of_n.rules:vowels",
            },
            "evaluate": {"bootstrap_samples": 200},
            "ray": {"num_cpus": 2},
        }
        (folder / "config.yaml").write_text(json.dumps(values))
        with (folder / "prompts.jsonl").open("w") as handle:
            for number in range(PROMPTS):
                row = {"id": f"p{number}", "prompt": f"Tell me about topic {number}.", "answer": str(number)}
                handle.write(json.dumps(row) + "\n")
        words = ["best-of-n", str(folder / "config.yaml"), "--out", str(folder / "out")]
        words += [word for model in models for word in ("--model", str(model))]
        self.words = [sys.executable, "-m", "music_ray", *words]
        self.process: subprocess.Popen[str] | None = None
        self.starts = 0

    @property
    def run(self) -> RunDir:
        return RunDir(resolve_config({"name": "out", "runs_dir": str(self.folder)}))

    def start(self) -> subprocess.Popen[str]:
        self.starts += 1
        with self.log().open("w") as log:
            self.process = subprocess.Popen(
                self.words, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=ROOT
            )
        return self.process

    def log(self) -> Path:
        return self.folder / f"log-{self.starts}"

    def judged(self) -> tuple[str, ...]:
        (name,) = [path.name for path in (self.folder / "out" / "judge").iterdir()]
        return "judge", name, "shards"

    def wait_for(self, number: int, where) -> set[int]:
        """Ids in shards, as soon as there are so many."""
        deadline = time.monotonic() + 300
        while True:
            assert self.process is not None and self.process.poll() is None, self.log().read_text()
            assert time.monotonic() < deadline, self.log().read_text()
            try:
                ids = set(read_index(self.run, where()).ids.tolist())
            except (FileNotFoundError, ValueError):  # no judge has been asked yet
                ids = set()
            if len(ids) >= number:
                return ids
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        left = psutil.Process(self.process.pid).children(recursive=True)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert none_left(left) == []

    def times(self, *folder: str) -> Counter[int]:
        """How often each id has a row in any shard."""
        return Counter(row["id"] for row in self.run.read_rows(*folder, columns=["id"]))


def picked(rows: list[dict[str, Any]], picker: str, comparison: dict[str, Any]) -> list[list[Message]]:
    """The conversation that a picker came to for each prompt."""
    key = (picker, comparison["selection"], comparison["n"])
    key = (RANDOM, "turn", 1) if picker == RANDOM else key
    found = [{(one["picker"], one["selection"], one["n"]): one for one in row["picks"]} for row in rows]
    return [one[key]["conversation"] for one in found]


@pytest.fixture
def command(tmp_path: Path):
    import torch
    from transformers import AutoModelForSequenceClassification

    model = make_reward_folder(tmp_path)
    other = tmp_path / "other"
    classifier = AutoModelForSequenceClassification.from_pretrained(model)
    torch.nn.init.normal_(classifier.score.weight)
    classifier.save_pretrained(other)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (model / name).exists():
            (other / name).write_bytes((model / name).read_bytes())
    made = Command(tmp_path, [model, other])
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.terminate()
        made.process.wait(timeout=60)


def test_the_driver_is_killed_in_both_jobs_and_every_row_is_there_once(command) -> None:
    command.start()
    flushed = command.wait_for(40, lambda: CONVERSATIONS)
    command.kill()
    assert 40 <= len(flushed) < PROMPTS
    command.start()
    verdicts = command.wait_for(20, command.judged)
    command.kill()
    conversations = command.times(*CONVERSATIONS)
    assert len(conversations) == PROMPTS and set(conversations.values()) == {1}, "no row twice, none lost"
    assert flushed <= set(conversations)
    process = command.start()
    assert process.wait(timeout=300) == 0, command.log().read_text()
    said = command.log().read_text()
    assert f"{PROMPTS} of {PROMPTS} prompts are done already, 0 to go" in said
    judged = command.times(*command.judged())
    assert set(judged.values()) == {1} and verdicts <= set(judged)
    result = json.loads((command.folder / "out" / "results.json").read_text())
    assert result["rows"]["ok"] == PROMPTS and result["rows"]["errors"] == {}
    assert len(judged) == result["judges"]["judge"]["num_questions"] + 10
    assert sum(result["judges"]["judge"]["verdicts"].values()) == len(judged) - 10
    assert {one["num_prompts"] for one in result["comparisons"]} == {PROMPTS}
    rows = list(command.run.read_rows(*CONVERSATIONS, columns=["picks"]))
    for one in result["comparisons"]:
        left, right = picked(rows, one["first"], one), picked(rows, one["second"], one)
        same = sum(one == other for one, other in zip(left, right, strict=True))
        assert one["same"] == same < PROMPTS
        if one["judged_by"] == "judge":
            # The scripted judge says nothing that can be read.
            assert (one["invalid"], one["first_wins"], one["second_wins"]) == (PROMPTS - same, 0, 0)
            continue
        values = [(vowels(one), vowels(other)) for one, other in zip(left, right, strict=True)]
        wins, losses = sum(one > other for one, other in values), sum(one < other for one, other in values)
        assert (one["first_wins"], one["second_wins"], one["invalid"]) == (wins, losses, 0)
        assert wins > 0 and losses > 0
        assert one["win_rate"] == pytest.approx((wins + (PROMPTS - wins - losses) / 2) / PROMPTS)
