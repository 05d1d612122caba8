"""The gate judge_disagrees: a judge, asked in both orders, must not prefer the rejected side.

Reads verdicts that are there; it asks nobody (music_ray/generate/judging.py does).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from music_ray.config import JudgeConfig
from music_ray.judge.orders import Orders
from music_ray.judge.rows import OUTCOMES, Verdicts, pair_id
from music_ray.judge.verdict import both_orders
from music_ray.schema import Rollout


class JudgeDisagrees:
    """A Check, and an account of the verdicts that it has met. A rollout without a verdict passes."""

    def __init__(self, config: JudgeConfig, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._config = config
        self._outcomes: Counter[str] = Counter()
        self._orders = Orders()

    def __call__(self, rollout: Rollout) -> str:
        """Empty when the rollout passes."""
        said = self.verdicts.of(pair_id(rollout.chosen, rollout.rejected))
        if said is None:
            return ""
        if said == "error":
            self._outcomes["errors"] += 1
            return ""
        outcome = OUTCOMES[both_orders(*said)]
        self._outcomes[outcome] += 1
        self._orders.add(*said)
        orders = f"chosen first: {said[0]}, chosen second: {said[1]}"
        if outcome == "rejected":
            return f"the judge prefers the rejected side ({orders})"
        if outcome == "tie" and self._config.require == "wins":
            return f"the judge prefers neither side ({orders})"
        if outcome == "invalid" and self._config.on_invalid == "refuse":
            return f"the judge gave no verdict ({orders})"
        return ""

    def counts(self) -> dict[str, int]:
        """The rollouts so far by what the judge said: chosen, rejected, tie, invalid; and errors."""
        return {name: self._outcomes[name] for name in (*OUTCOMES.values(), "errors")}

    def facts(self) -> dict[str, Any]:
        """Who the judge is and how far it can be trusted.

        Returns:
            engine, model, verdicts (their folder), tokens (of all its verdicts, of earlier starts as well),
            and two shares, None where there is nothing to share: first_position_wins, of the answers that
            name a winner those that name the conversation shown first (0.5 without position bias), and
            agreement_in_both_orders, of the rollouts with a verdict in each order.
        """
        engine = self._config.engine
        return {
            "engine": engine.kind if engine else "",
            "model": engine.model if engine else "",
            "verdicts": "/".join(self.verdicts.folder),
            "tokens": self.verdicts.tokens,
            "first_position_wins": _rounded(self._orders.first_position_wins),
            "agreement_in_both_orders": _rounded(self._orders.agreement_in_both_orders),
        }

    def notes(self) -> list[str]:
        """What a reader of the counts should know."""
        notes = []
        if (agreeing := self._orders.agreement_in_both_orders) is not None:
            notes.append(f"the judge says the same in both orders of {agreeing:.0%} of the pairs")
        if (first := self._orders.first_position_wins) is not None:
            notes.append(f"{first:.0%} of the judge's winners are the conversation that it was shown first")
        if errors := self._outcomes["errors"]:
            reasons = ", ".join(f"{name} {number}" for name, number in self.verdicts.reasons.most_common(5))
            notes.append(
                f"{errors} rollouts have no verdict of the judge, whose engine did not answer ({reasons}), "
                f"and are not refused for it: see the `detail` column in {'/'.join(self.verdicts.folder)}"
            )
        return notes


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
