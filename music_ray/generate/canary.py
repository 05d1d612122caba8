"""The canary: the first seeds' rollouts go through gates and audit before the rest is paid for.

The engines go on meanwhile: loading a model again would cost more than the few rollouts that are made
while the canary is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from music_ray.errors import StageError
from music_ray.jobs.shards import is_among, read_index, read_rows
from music_ray.jobs.watch import Stop
from music_ray.progress import say
from music_ray.rundir import RunDir
from music_ray.schema import PreferencePair, rollout_from_row


class Canary:
    """A jobs Watch that looks once, when all of the first seeds are there.

    Args:
        ids: sorted int64 ids of the first seeds.
        missing: those of them that no shard holds yet.
    """

    def __init__(self, run: RunDir, folder: tuple[str, ...], ids: np.ndarray, missing: set[int]) -> None:
        self._run, self._folder, self._ids, self._missing = run, folder, ids, missing
        self._over = False

    @classmethod
    def of(
        cls, run: RunDir, folder: tuple[str, ...], seed_ids: np.ndarray, done: np.ndarray
    ) -> Canary | None:
        """The canary of a run, None where it has none or had it already.

        Args:
            seed_ids: in the order in which they are rolled out.
            done: sorted ids that this start does not roll out.

        Raises:
            StageError: all of the first seeds are there, and they do not pass.
        """
        number = run.config.generate.canary.seeds
        if not number or len(seed_ids) < 2 * number:
            return None
        ids = np.sort(seed_ids[:number])
        missing = ids[~is_among(ids, done)]
        canary = cls(run, folder, ids, set(missing.tolist()))
        if len(missing):
            return canary
        # Before any engine is started: an earlier start made them and ended before it could look.
        if not run.manifest().get("canary", {}).get("passed") and (problem := canary._look()):
            raise StageError(problem)
        return None

    def on_results(self, ids: Sequence[int], statuses: Sequence[str], reasons: Sequence[str]) -> Stop | None:
        """See Watch."""
        self._missing.difference_update(ids)
        if self._over or self._missing:
            return None
        self._over = True
        problem = self._look()
        return Stop(StageError(problem)) if problem else None

    def on_totals(self, totals: dict[str, Any]) -> Stop | None:
        """See Watch."""
        return None

    def _look(self) -> str:
        """Empty, or why the run should stop."""
        from music_ray.generate.audit import audit_pairs

        reasons, pairs = self._judge_rollouts()
        audit = audit_pairs(pairs, self._run.config.audit, self._run.config.seed)
        whole = audit.views["surface/whole"]
        say(f"generate: canary: {len(pairs)} of the first {len(self._ids)} rollouts pass the gates")
        problem = self._acceptance_problem(len(pairs), reasons) or self._shortcut_problem(len(pairs), whole)
        self._run.note(
            "canary",
            {
                "seeds": len(self._ids),
                "accepted": len(pairs),
                "refused": dict(reasons.most_common()),
                "auc": whole.auc,
                "auc_interval": [whole.low, whole.high],
                "passed": not problem,
            },
        )
        return problem

    def _judge_rollouts(self) -> tuple[Counter[str], list[PreferencePair]]:
        from music_ray.generate.gates import first_refusal
        from music_ray.generate.pairs import music_pair

        reasons: Counter[str] = Counter()
        pairs = []
        index = read_index(self._run, self._folder).only(self._ids)
        for row in read_rows(self._run, index):
            rollout = rollout_from_row(row)
            if rollout.status == "error":
                reasons[rollout.reason] += 1
            elif refusal := first_refusal(rollout, self._run.config.pairs.gates):
                reasons[refusal.reason] += 1
            else:
                pairs.append(music_pair(rollout))
        return reasons, pairs

    def _acceptance_problem(self, accepted: int, reasons: Counter[str]) -> str:
        bound, where = self._run.config.generate.canary.min_acceptance, self._run.display("rollouts")
        if accepted >= bound * len(self._ids):
            return ""
        most = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5))
        return (
            f"only {accepted} of the first {len(self._ids)} rollouts pass the gates ({most}), "
            f"generate.canary.min_acceptance is {bound:g}: see the rollouts in {where}, mend "
            " the configuration under another name, or lower the bound"
        )

    def _shortcut_problem(self, accepted: int, whole: Any) -> str:
        bound = self._run.config.generate.canary.max_auc
        if whole.low is None or whole.low <= bound:
            return ""
        return (
            f"surface features alone tell chosen from rejected with AUC {whole.auc:.2f} (at least "
            f"{whole.low:.2f}) in the first {accepted} pairs, generate.canary.max_auc is {bound:g}: change "
            "the contrast under another name, or raise the bound (docs/explanation/shortcut-audit.md)"
        )
