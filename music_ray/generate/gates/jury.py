"""All gates at work on the rollouts of a run: who is refused, what else each would fail, and the counts.

Every gate hears every rollout, so that each gate's effect is known apart from its place in the order.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import Refusal
from music_ray.generate.gates.duplicates import NearDuplicates
from music_ray.generate.gates.judged import JudgeDisagrees
from music_ray.generate.gates.panel import NEAR_DUPLICATE, Panel, switch
from music_ray.rundir import RunDir
from music_ray.schema import Rollout


class Jury:
    """Hears every rollout with status ok once, in any order; near-duplicates are settled at the end.

    Raises:
        InputError: an evaluation set or a plug-in that the configuration names can't be had.
    """

    def __init__(self, gates: GatesConfig, run: RunDir | None = None) -> None:
        self._panel = Panel(gates, run)
        self._duplicates_off = switch(NEAR_DUPLICATE, gates)
        self._duplicates = None if self._duplicates_off else NearDuplicates(gates)
        self._failing: Counter[str] = Counter()
        """Rollouts by each gate that they fail."""
        self._also: dict[int, list[str]] = {}
        """For each rollout that was refused on hearing, the gates that it fails besides its reason."""

    def hear(self, rollout: Rollout, by_hand: Refusal | None = None) -> Refusal | None:
        """Why a rollout is refused, None when it passes; the gate near_duplicate speaks later.

        Args:
            by_hand: a refusal that comes before all gates.
        """
        failing = self._panel.failing(rollout)
        self._failing.update(one.reason for one in failing)
        refusals = [by_hand, *failing] if by_hand else failing
        if self._duplicates is not None:
            self._duplicates.add(rollout, stands=not refusals)
        if not refusals:
            return None
        self._also[rollout.id] = [one.reason for one in refusals[1:]]
        return refusals[0]

    def late_refusals(self) -> dict[int, Refusal]:
        """After the last rollout: those that passed and repeat an earlier pair, by id."""
        if self._duplicates is None:
            return {}
        verdicts = self._duplicates.verdicts()
        self._failing[NEAR_DUPLICATE] = len(verdicts.alone)
        for one in verdicts.alone.keys() & self._also.keys():
            self._also[one].append(NEAR_DUPLICATE)
        return {one: Refusal(NEAR_DUPLICATE, detail) for one, detail in verdicts.refused.items()}

    def also(self, one: int) -> list[str]:
        """The gates that a refused rollout fails besides its reason."""
        return self._also.get(one, [])

    def counts(self, refused: dict[str, int]) -> dict[str, dict[str, Any]]:
        """What each gate did, in their order.

        Args:
            refused: how many rollouts were refused by each reason.

        Returns:
            For each gate `on`, `why_off` (empty when on), `refused`, and `would_refuse_alone`: how many
            rollouts with status ok fail it, whatever the others say; None when it did not look.
        """
        off = self._panel.off | {NEAR_DUPLICATE: self._duplicates_off}
        return {
            name: {
                "on": why is None,
                "why_off": why.why if why else "",
                "refused": refused.get(name, 0),
                "would_refuse_alone": None if why else self._failing[name],
            }
            for name, why in off.items()
        }

    @property
    def overlaps(self) -> dict[str, int]:
        """How many rollouts overlap with each evaluation set."""
        return self._panel.overlaps

    @property
    def judged(self) -> JudgeDisagrees | None:
        """The judge's verdicts and what they come to; None without a judge."""
        return self._panel.judged

    @property
    def missing(self) -> dict[str, str]:
        """The gates that are off because their input is missing, with what is missing."""
        return {name: off.why for name, off in self._panel.off.items() if off and off.is_missing_input}
