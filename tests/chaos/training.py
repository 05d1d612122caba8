"""Training under faults: every pair once an epoch, whatever was lost and with however many workers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from music_ray.config.load import resolve_config
from music_ray.reward.logbook import LOG, PAIRS, read_log
from music_ray.reward.train import prepare
from music_ray.reward.worker import OUTCOME, train_worker
from music_ray.rundir import FOLDERS, STAGES, RunDir
from music_ray.schema import PAIR_SCHEMA, to_table
from tests.chaos.nodes import Nodes
from tests.chaos.scene import DRIVER, NODE, NODE_FOR_LONG, WORKER, Incident, Scene
from tests.reward.conftest import make_model, make_pair
from tests.reward.zero3_ranks import call_ranks

FAULTS = {DRIVER: 1, WORKER: 2, NODE: 1, NODE_FOR_LONG: 1}
"""Of each kind in five."""
PAIRS_OF_RUN, PAIRS_A_STEP = 170, 6
LARGEST_DIFFERENCE = 1e-4
"""Of a loss from that of a training without faults: sums of other numbers of workers end in other digits."""
PLAIN_SECONDS = 1800.0


def make_run(folder: Path, name: str, steps: int) -> RunDir:
    """A run of a tiny random Gemma-2 whose mix is there; the stages before training count as done."""
    model = folder / "gemma2"
    if not model.exists():
        make_model(model, "gemma2")
    config = resolve_config(
        {
            "name": name,
            "runs_dir": str(folder / "runs"),
            "seed": 5,
            "train": {
                "base_model": str(model),
                "steps": steps,
                "pairs_per_step": PAIRS_A_STEP,
                "learning_rate": 1e-4,
                "weight_decay": 0.1,
                "max_tokens": 64,
                "checkpoint_every": 10,
                "evaluate_every": None,
                "max_failures": -1,
            },
        }
    )
    run = RunDir(config)
    run.open()
    pairs = [make_pair(number) for number in range(PAIRS_OF_RUN)]
    run.write_table(to_table(pairs, PAIR_SCHEMA), "mix", "train-00000.parquet")
    for stage in STAGES[: STAGES.index("train")]:
        run.start_stage(stage)
        run.write_text("given\n", FOLDERS[stage], "given.txt")
        run.finish_stage(stage, output="given", seconds=0.0)
    return run


@dataclass(frozen=True)
class Seen:
    """How far the log is."""

    file: int | None
    """The file's inode: each start writes the log anew before its first step."""
    rewrites: int
    base: int
    """Lines that the last rewriting kept."""
    lines: int


class Training(Scene):
    """The train stage with as many workers as there are nodes."""

    name: ClassVar[str] = "train"
    worker: ClassVar[str] = "RayTrainWorker"

    def __init__(self, nodes: Nodes, folder: Path, run: RunDir) -> None:
        super().__init__(nodes, folder)
        self.run = run
        self._config = folder / "train.yaml"
        self._config.write_text(run.config.model_dump_json())
        self._seen = Seen(None, 0, 0, 0)
        self._steps_lost = 0
        self._workers: list[int] = []
        """Of each start."""
        self._grown: dict[int, float] = {}
        """By rewriting: when the first step after it was seen."""

    def command(self) -> list[str]:
        """See Scene."""
        self._workers.append(len(self.nodes.alive))
        count = f"train.num_workers={self._workers[-1]}"
        return [sys.executable, "-m", "music_ray", "train", str(self._config), count]

    def look(self) -> None:
        """See Scene."""
        log = Path(self.run.path(*LOG))
        if not log.exists():
            return
        seen, file = self._seen, log.stat().st_ino
        lines = log.read_bytes().count(b"\n")
        if seen.file != file:
            self._steps_lost += seen.lines - lines if seen.file is not None else 0
            seen = Seen(file, seen.rewrites + 1, lines if seen.file is not None else 0, lines)
        if lines > seen.base:
            self._grown.setdefault(seen.rewrites, time.time())
        self._seen = Seen(file, seen.rewrites, seen.base, lines)

    def remember(self, lost: set[int]) -> int:
        """How often the log was begun anew."""
        self.look()
        return self._seen.rewrites

    def back_since(self, incident: Incident) -> float | None:
        """See Scene."""
        return min((at for number, at in self._grown.items() if number > incident.before), default=None)

    def count(self) -> None:
        """Pairs that were skipped or met twice in an epoch, and losses that no undisturbed training has."""
        run, steps = self.run, self.run.config.train.steps
        outcome = json.loads(run.read_text(*OUTCOME))
        assert outcome["status"] == "done", outcome
        order = [one for line in read_log(run, PAIRS) for one in line["ids"]]
        difference = _largest_difference(losses(run), losses(self._without_faults()))
        self.played.zeros = {
            **count_pairs(order, PAIRS_OF_RUN, steps * PAIRS_A_STEP),
            "losses off": int(difference > LARGEST_DIFFERENCE),
        }
        self.played.wasted_share = self._steps_lost / (steps + self._steps_lost)
        self.played.facts = {
            "steps": steps,
            "pairs": PAIRS_OF_RUN,
            "epochs": round(len(order) / PAIRS_OF_RUN, 1),
            "steps_lost": self._steps_lost,
            "workers_of_each_start": self._workers,
            "largest_difference_of_a_loss": difference,
        }

    def _without_faults(self) -> RunDir:
        """The same training by one process that nothing happens to."""
        run = make_run(self.folder, "undisturbed", self.run.config.train.steps)
        task, _ = prepare(run)
        assert call_ranks(train_worker, 1, task, limit=PLAIN_SECONDS) == [0]
        return run


def losses(run: RunDir) -> list[float]:
    """The losses of the steps, which must be 1, 2, 3, …"""
    lines = read_log(run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def count_pairs(order: Sequence[str], pairs: int, expected: int) -> dict[str, int]:
    """Pairs that were skipped and pairs that came twice in an epoch.

    Args:
        order: ids in the order in which they were trained on.
        pairs: how many different ones there are.
        expected: how long the order must be.
    """
    epochs = [order[start : start + pairs] for start in range(0, len(order), pairs)]
    return {
        "skipped": max(0, expected - len(order))
        + sum(pairs - len(set(epoch)) for epoch in epochs if len(epoch) == pairs),
        "repeated": max(0, len(order) - expected) + sum(len(epoch) - len(set(epoch)) for epoch in epochs),
    }


def _largest_difference(some: Sequence[float], others: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(some, others, strict=True))
