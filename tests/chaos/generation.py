"""Generation under faults: every seed must come out once, and no finished row may be made again."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from music_ray.jobs.shards import read_index
from tests.chaos.nodes import Nodes
from tests.chaos.scene import DRIVER, NODE, WORKER, Incident, Scene
from tests.chaos.slow_contrast import Call, read_calls
from tests.generate.faults import ACTOR, SHARDS, FaultyRun

FAULTS = {DRIVER: 1, WORKER: 3, NODE: 2}
"""Of each kind in six."""
SCRIPTED: dict[str, Any] = {
    "engine": {"kind": "scripted", "min_engines": 1, "max_engines": 5},
    "generate": {
        "turns": 3,
        "conversations_per_task": 4,
        "tasks_in_flight": 2,
        "flush_rows": 16,
        "flush_seconds": 2.0,
        "canary": {"seeds": 0},
    },
}
ROWS_IN_FLIGHT = {"generate": 36, "vllm": 8}
"""Of all engines, about, by scene: five with 4 x 2 places, and one."""
VLLM: dict[str, Any] = {
    "engine": {
        "kind": "vllm",
        "model": "demo:smollm2-135m-instruct",
        "max_model_len": 512,
        "max_num_seqs": 8,
        "enforce_eager": True,
    },
    "assistant": {"sampling": {"temperature": 0.5, "top_p": 1.0, "max_tokens": 24}},
    "contrast": {"sampling": {"temperature": 0.5, "top_p": 1.0, "max_tokens": 24}},
    "user": {"mode": "template", "sampling": {"temperature": 0.6, "top_p": 1.0, "max_tokens": 16}},
    "generate": {
        "turns": 2,
        "conversations_per_task": 4,
        "flush_rows": 4,
        "flush_seconds": 1.0,
        "canary": {"seeds": 0},
    },
}


def opening(number: int) -> str:
    """The first message of a seed."""
    return f"Please tell me about topic {number}."


def make_run(folder: Path, seeds: int, sections: dict[str, Any]) -> FaultyRun:
    """A run of so many seeds; its seeds stage is still to be run."""
    data = folder / "pairs.jsonl"
    with data.open("w") as handle:
        for number in range(seeds):
            asked = [{"role": "user", "content": opening(number)}]
            chosen = [*asked, {"role": "assistant", "content": f"Topic {number} is good."}]
            rejected = [*asked, {"role": "assistant", "content": f"No idea about {number}."}]
            handle.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    values: dict[str, Any] = {
        "name": "chaos",
        "runs_dir": str(folder / "runs"),
        "data": {"sources": [{"path": str(data)}], "held_out_fraction": 0.0},
        "user": {"mode": "template"},
        **sections,
    }
    values["contrast"] = {**sections.get("contrast", {}), "plugin": "tests.chaos.slow_contrast:contrast"}
    return FaultyRun(folder, values)


@dataclass(frozen=True)
class Lost:
    """What a fault takes away."""

    rows: set[str]
    """Openings of the seeds that were being worked on."""
    processes: set[int]
    """Ids of those that are lost."""
    known: set[int]
    """Ids of all that had worked by then."""
    calls: int
    """Lines of the record by then."""


class Generation(Scene):
    """The generate stage, whose calls are on record."""

    name: ClassVar[str] = "generate"
    worker: ClassVar[str] = ACTOR

    def __init__(self, nodes: Nodes, folder: Path, faulty: FaultyRun) -> None:
        super().__init__(nodes, folder)
        self.faulty = faulty
        contexts = faulty.run.read_rows("seeds", "contexts", columns=["id", "messages"])
        self._seeds: dict[int, str] = {row["id"]: row["messages"][0]["content"] for row in contexts}
        self._offset = 0
        self._calls: list[Call] = []
        self._first: dict[int, float] = {}
        """When each process was first at work."""
        self._flushed: list[tuple[float, set[int]]] = []
        """What lay in shards when something was lost."""

    def command(self) -> list[str]:
        """See Scene."""
        return self.faulty.command("generate")

    def look(self) -> None:
        """See Scene."""
        for offset, call in read_calls(self.folder, self._offset):
            self._offset = offset
            self._calls.append(call)
            self._first.setdefault(call.pid, call.at)

    def first_call(self, pid: int) -> float | None:
        """When a process was first at work, as far as it was looked at; seconds since 1970."""
        return self._first.get(pid)

    def remember(self, lost: set[int]) -> Lost:
        """The rows that only the lost processes had, and what was finished."""
        flushed = self.faulty.flushed()
        self._flushed.append((time.time(), flushed))
        self.look()
        last = {call.opening: call.pid for call in self._calls}
        finished = {self._seeds[one] for one in flushed}
        rows = {one for one, pid in last.items() if pid in lost} - finished
        return Lost(rows, lost, set(self._first), len(self._calls))

    def back_since(self, incident: Incident) -> float | None:
        """When another process began the first of its rows; where it had none, when a new one began any."""
        lost: Lost = incident.before
        for call in self._calls[lost.calls :]:
            is_again = call.opening in lost.rows if lost.rows else call.pid not in lost.known
            if is_again and call.pid not in lost.processes:
                return call.at
        return None

    def count(self) -> None:
        """Lost, duplicated and given-up seeds, and rows that were made although a shard held them."""
        run = self.faulty.run
        rows = Counter(row["id"] for row in run.read_rows(*SHARDS, columns=["id"]))
        index = read_index(run, SHARDS)
        wasted, remade = self._work_done_twice()
        self.played.zeros = {
            "lost": sum(one not in rows for one in self._seeds),
            "duplicated": sum(number - 1 for number in rows.values()),
            "given up": int(index.is_error.sum()),
            "made again": remade,
        }
        self.played.wasted_share = wasted / max(len(self._calls), 1)
        self.played.facts = {
            "seeds": len(self._seeds),
            "calls": len(self._calls),
            "calls_wasted": wasted,
            "processes": len(self._first),
        }

    def _work_done_twice(self) -> tuple[int, int]:
        """(calls of rollouts that did not come to their end, rows made again although they were finished).

        A rollout is made by one process: of a seed that several have worked on, the last one's counts.
        """
        last: dict[str, int] = {call.opening: call.pid for call in self._calls}
        wasted = sum(last[call.opening] != call.pid for call in self._calls)
        times: dict[str, list[float]] = defaultdict(list)
        for call in self._calls:
            times[call.opening].append(call.at)
        remade = {
            one
            for at, flushed in self._flushed
            for one in flushed
            if any(time > at for time in times[self._seeds[one]])
        }
        return wasted, len(remade)


class VllmGeneration(Generation):
    """The same with a real model."""

    name: ClassVar[str] = "generate, vLLM"
