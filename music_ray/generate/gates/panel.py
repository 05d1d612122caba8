"""All gates in their order, each with what it needs, or the reason why it looks at nothing.

To add a gate: a switch of its name in GatesConfig, and an entry in _GATES that makes its check from the
configuration and the run folder. A gate whose input is not there returns Off and is off by itself. It
does not know near_duplicate, which looks at many rollouts (duplicates.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import Check, Off, Refusal
from music_ray.generate.gates.eval_overlap import EvalOverlap
from music_ray.generate.gates.eval_sets import read_eval_sets
from music_ray.generate.gates.judged import JudgeDisagrees
from music_ray.generate.gates.messages import cut_off, empty, looping, template_leak
from music_ray.generate.gates.plugins import load_plugin
from music_ray.generate.gates.refusals import refusal_in_chosen
from music_ray.generate.gates.sides import branches_alike, branches_equal, length_ratio
from music_ray.judge.rows import Verdicts, verdict_folder
from music_ray.rundir import RunDir
from music_ray.schema import Rollout

NEAR_DUPLICATE = "near_duplicate"
"""The gate that comes after all the others: it asks which of the pairs that are left repeat one another."""

Make = Callable[[GatesConfig, RunDir | None], Check | Off]
"""Makes a gate that is switched on. The run folder is where an input of its own may lie, if there is one."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: its name is the reason that is counted."""

    name: str
    check: Check | Off


class Panel:
    """The gates that look at one rollout at a time, ready to look.

    Args:
        run: the run folder, for gates that read an input from it.

    Raises:
        InputError: an evaluation set or a plug-in that the configuration names can't be had.
    """

    def __init__(self, gates: GatesConfig, run: RunDir | None = None) -> None:
        made = [Gate(name, _make(name, make, gates, run)) for name, make in _GATES.items()]
        self.gates = [*made, *(Gate(name.partition(":")[2], load_plugin(name)) for name in gates.plugins)]

    def failing(self, rollout: Rollout) -> list[Refusal]:
        """Every gate that a rollout with status ok fails, in order."""
        return [
            Refusal(gate.name, detail)
            for gate in self.gates
            if not isinstance(gate.check, Off) and (detail := gate.check(rollout))
        ]

    @property
    def off(self) -> dict[str, Off | None]:
        """For every gate in order why it is off, None when it is on."""
        return {gate.name: gate.check if isinstance(gate.check, Off) else None for gate in self.gates}

    @property
    def overlaps(self) -> dict[str, int]:
        """How many of the rollouts so far overlap with each evaluation set; empty without any set."""
        return next(
            (dict(gate.check.pairs) for gate in self.gates if isinstance(gate.check, EvalOverlap)), {}
        )

    @property
    def judged(self) -> JudgeDisagrees | None:
        """The gate judge_disagrees, None when it is off."""
        return next((gate.check for gate in self.gates if isinstance(gate.check, JudgeDisagrees)), None)


def first_refusal(rollout: Rollout, gates: GatesConfig) -> Refusal | None:
    """The first gate that a rollout with status ok fails, None when it passes all that are switched on.

    near_duplicate is not asked: it takes all rollouts of a run.
    """
    return next(iter(_panel(gates.model_dump_json()).failing(rollout)), None)


@lru_cache(maxsize=1)
def _panel(gates: str) -> Panel:
    """Evaluation sets are read once, not for every rollout."""
    return Panel(GatesConfig.model_validate_json(gates))


def switch(name: str, gates: GatesConfig) -> Off | None:
    """Off when the configuration switches the gate off."""
    return None if getattr(gates, name) else Off(f"switched off by pairs.gates.{name}=false")


def _make(name: str, make: Make, gates: GatesConfig, run: RunDir | None) -> Check | Off:
    return switch(name, gates) or make(gates, run)


def _plain(check: Callable[[Rollout, GatesConfig], str]) -> Make:
    """A gate that needs nothing but its bounds."""
    return lambda gates, run: lambda rollout: check(rollout, gates)


def _eval_overlap(gates: GatesConfig, run: RunDir | None) -> Check | Off:
    if not gates.eval_sets:
        return Off("no evaluation set is named in pairs.gates.eval_sets", is_missing_input=True)
    return EvalOverlap(gates, read_eval_sets(gates))


def _judge_disagrees(gates: GatesConfig, run: RunDir | None) -> Check | Off:
    if run is None or (judge := run.config.pairs.judge).engine is None:
        return Off("no judge is named in pairs.judge.engine", is_missing_input=True)
    return JudgeDisagrees(judge, Verdicts(run, verdict_folder(judge.engine, judge.sampling)))


_GATES: dict[str, Make] = {
    "empty": _plain(empty),
    "cut_off": _plain(cut_off),
    "branches_equal": _plain(branches_equal),
    "branches_alike": _plain(branches_alike),
    "template_leak": _plain(template_leak),
    "looping": _plain(looping),
    "refusal_in_chosen": _plain(refusal_in_chosen),
    "length_ratio": _plain(length_ratio),
    "eval_overlap": _eval_overlap,
    "judge_disagrees": _judge_disagrees,
}
