"""The training log as series over steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from music_ray.report.jsonlines import naming_damage, read_objects
from music_ray.rundir import RunDir

SERIES = ("loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "learning_rate", "gradient_norm")
_EDGE = 10
"""At most this many steps are averaged for 'at the start' and 'at the end'."""


@dataclass(frozen=True, slots=True)
class Training:
    """logs/train.jsonl, one entry a step."""

    steps: list[int]
    series: dict[str, list[float]]
    """NaN where a step did not log a value."""
    num_repeated: int
    """Lines of a step that a later line of the same step replaced: work that an interruption cost."""
    num_unreadable: int
    tokens: int
    seconds: float

    @property
    def edge(self) -> int:
        """How many steps `start` and `end` average over."""
        return max(1, min(_EDGE, len(self.steps) // 4))

    def start(self, name: str) -> float:
        """Mean of a series over its first steps."""
        return _mean(self.series[name][: self.edge])

    def end(self, name: str) -> float:
        """Mean of a series over its last steps."""
        return _mean(self.series[name][-self.edge :])


def read_training(run: RunDir) -> Training | None:
    """The log, or None when no step was logged. The last line of a step counts.

    Raises:
        InputError: a line holds another kind of value than training logs.
    """
    lines = read_objects(run, "logs", "train.jsonl")
    entries = [line for line in lines.objects if isinstance(line.get("step"), int)]
    by_step = {entry["step"]: entry for entry in entries}
    if not by_step:
        return None
    rows = [by_step[step] for step in sorted(by_step)]
    with naming_damage("a line of it", "remove that line"):
        return Training(
            steps=sorted(by_step),
            series={name: [_number(row.get(name)) for row in rows] for name in SERIES},
            num_repeated=len(entries) - len(by_step),
            num_unreadable=lines.num_unreadable,
            tokens=sum(int(row.get("tokens") or 0) for row in rows),
            seconds=sum(float(row.get("seconds") or 0.0) for row in rows),
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
