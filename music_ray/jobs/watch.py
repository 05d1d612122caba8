"""What may end a job early: each watch sees results and totals, and says when it is enough.

Watches are asked by the driver and know nothing of Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from music_ray.errors import StageError
from music_ray.jobs.board import FLUSH


@dataclass(frozen=True)
class Stop:
    """Why a job ends before its rows do."""

    error: StageError
    """For the user: the value, the bound and the remedy."""
    directive: str = FLUSH
    """FLUSH gives up what is in flight; DRAIN lets it come to its end."""


class Watch(Protocol):
    """Something that may end a job."""

    def on_results(self, ids: Sequence[int], statuses: Sequence[str], reasons: Sequence[str]) -> Stop | None:
        """Asked after each task, with its rows."""
        ...

    def on_totals(self, totals: dict[str, Any]) -> Stop | None:
        """Asked every few seconds, with Board.totals."""
        ...


@dataclass
class ErrorRate:
    """Ends a job in which too many rows fail."""

    max_rate: float
    after: int
    where: str
    """Where the rows can be read, for the message."""
    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def on_results(self, ids: Sequence[int], statuses: Sequence[str], reasons: Sequence[str]) -> Stop | None:
        """See Watch."""
        self.rows += len(statuses)
        self.reasons.update(
            reason for status, reason in zip(statuses, reasons, strict=True) if status == "error"
        )
        errors = self.reasons.total()
        if self.rows < self.after or errors <= self.max_rate * self.rows:
            return None
        most = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common(5))
        return Stop(
            StageError(
                f"{errors} of {self.rows} rows failed ({most}), generate.max_error_rate is "
                f"{self.max_rate:g}: mend the cause (the `detail` column in {self.where} says more) and run "
                "the same command again, with generate.retry_errors=true for the failed ones as well"
            )
        )

    def on_totals(self, totals: dict[str, Any]) -> Stop | None:
        """See Watch."""
        return None
