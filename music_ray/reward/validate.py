"""Accuracy on held-out pairs while the model trains, and which checkpoint is the best by it.

The pairs are those of mix/held_out, tokenised by the rules of the training pairs. Every rank knows
all of them and takes part in scoring; a pair is scored once, whatever the number of ranks. Knows
passes as something that scores pairs; it neither trains nor writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow.compute as pc

from music_ray.chat import ChatFormat
from music_ray.config import TrainConfig
from music_ray.errors import InputError, StageError
from music_ray.reward.checkpoint_index import evaluations
from music_ray.reward.data import PairTokens
from music_ray.reward.tokenise import DROPPED, TokenRules, tokenise_rows
from music_ray.rundir import RunDir
from music_ray.schema import content_id

SUITES = ("preferences", "music")
_REMEDY = {"preferences": "raise data.held_out_fraction", "music": "raise mix.held_out_fraction"}


class Scorer(Protocol):
    """What scores pairs on all ranks together (reward.passes.Passes)."""

    def score(self, pairs: PairTokens, batch: Sequence[int]) -> Any:
        """float32 rewards, [2, b]: chosen and rejected; the same on every rank."""


@dataclass(frozen=True)
class SuiteResult:
    """One held-out suite, scored once."""

    accuracy: float
    """Share of pairs whose chosen side has the higher reward; a tie counts as wrong."""
    loss: float
    """Mean Bradley-Terry loss, without the options of train.loss: runs that differ in those compare."""
    margin: float
    """Mean of chosen minus rejected reward."""
    num_pairs: int
    num_dropped: int
    """Pairs of the sample that could not be tokenised, over-long ones above all: not in the averages."""


@dataclass(frozen=True)
class ValidationResult:
    """Both suites after some step, the same on every rank."""

    step: int
    suites: dict[str, SuiteResult]
    is_best: bool
    """Whether no earlier evaluation was as good by train.best_by: worth a checkpoint."""


class Validation:
    """The held-out pairs of a run, and how good the model was on them so far."""

    def __init__(self, run: RunDir, chat: ChatFormat, passes: Scorer) -> None:
        """Reads and tokenises the pairs; evaluations of an earlier start come from the checkpoints.

        Raises:
            InputError: see check_held_out, and train.export=best where no held-out pair can be scored.
            RunFolderError: a checkpoint's index is damaged.
        """
        check_held_out(run)
        self.train, self.passes = run.config.train, passes
        self.suites: dict[str, PairTokens] = {}
        self.dropped: dict[str, Counter[str]] = {}
        for name in SUITES if self.train.evaluate_every else ():
            pairs, self.dropped[name] = _tokens(run, chat, name)
            if len(pairs):
                self.suites[name] = pairs
        if self.train.export == "best" and not self.suites:
            reasons = sum(self.dropped.values(), Counter())
            raise InputError(
                "train.export=best, but no held-out pair can be scored (dropped: "
                f"{', '.join(f'{reason} {count}' for reason, count in sorted(reasons.items()))}): raise "
                "train.max_tokens, or set train.export=last"
            )
        self._scores = evaluations(run)

    def due(self, step: int) -> bool:
        """Whether the held-out pairs are scored after this many finished steps."""
        every = self.train.evaluate_every
        if every is None or not self.suites:
            return False
        return step % every == 0 or step == self.train.steps

    def evaluate(self, step: int) -> ValidationResult:
        """Scores all held-out pairs.

        Collective: every rank must call it after the same step.

        Raises:
            StageError: a reward is not a finite number; the pairs are named.
        """
        suites = {name: self._evaluate_suite(name, pairs) for name, pairs in self.suites.items()}
        self._scores[step] = {name: asdict(suite) for name, suite in suites.items()}
        return ValidationResult(step, suites, is_best=self.best_step == step)

    @property
    def best_step(self) -> int | None:
        """The step that was best so far by train.best_by, the earlier one of equals."""
        return best_step(self._scores, self.train.best_by)

    def scores_at(self, step: int) -> dict[str, Any] | None:
        """What was scored after a step, as JSON types; None where that step was not evaluated."""
        return self._scores.get(step)

    def _evaluate_suite(self, name: str, pairs: PairTokens) -> SuiteResult:
        import torch

        from music_ray.reward.loss import bradley_terry

        size = self.train.pairs_per_step  # a training step's pairs are known to fit the memory
        batches = [range(start, min(start + size, len(pairs))) for start in range(0, len(pairs), size)]
        chosen, rejected = torch.cat([self.passes.score(pairs, batch).cpu() for batch in batches], dim=1)
        broken = (~(chosen - rejected).isfinite()).nonzero().flatten().tolist()
        if broken:
            names = ", ".join(pairs.ids[index] for index in broken[:8])
            raise StageError(
                f"rewards of held-out pairs ({name}: {names}) are not finite numbers: look at them in "
                "mix/held_out, lower train.learning_rate, or train in float32"
            )
        return SuiteResult(
            accuracy=(chosen > rejected).double().mean().item(),
            loss=bradley_terry(chosen, rejected).double().mean().item(),
            margin=(chosen.double() - rejected.double()).mean().item(),
            num_pairs=len(pairs),
            num_dropped=sum(self.dropped[name].values()),
        )


# -- which is the best -----------------------------------------------------------------------------


def rank_of(scores: dict[str, Any], best_by: str) -> tuple[float, float]:
    """How good an evaluation is, to be compared with `>`: the accuracy asked for, then the lower loss."""
    loss = _mean([suite["loss"] for suite in scores.values()])
    if best_by == "loss":
        return -loss, 0.0
    suite = best_by.removesuffix("_accuracy")
    if suite in scores:
        return scores[suite]["accuracy"], -scores[suite]["loss"]
    return _mean([one["accuracy"] for one in scores.values()]), -loss


def best_step(scores: dict[int, dict[str, Any]], best_by: str) -> int | None:
    """The best of some evaluations by step, the earliest of equals; None where there are none.

    Those that scored other pairs than the newest (train.evaluate_pairs was changed, say) don't count.
    """
    if not scores:
        return None
    sizes = _sizes(scores[max(scores)])
    comparable = [step for step in sorted(scores) if _sizes(scores[step]) == sizes]
    return max(comparable, key=lambda step: rank_of(scores[step], best_by))


def _sizes(scores: dict[str, Any]) -> dict[str, int]:
    return {name: suite["num_pairs"] for name, suite in scores.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# -- which pairs -----------------------------------------------------------------------------------


def check_held_out(run: RunDir) -> str | None:
    """What will be evaluated while training, found out without a model.

    Returns:
        A sentence for the user; None where train.evaluate_every turns it off.

    Raises:
        InputError: train.best_by or train.export asks for pairs that were not held out.
    """
    train = run.config.train
    if train.evaluate_every is None:
        return None
    sizes = {name: size for name in SUITES if (size := min(_num_rows(run, name), train.evaluate_pairs))}
    wanted = train.best_by.removesuffix("_accuracy")
    if wanted in SUITES and wanted not in sizes and sizes:
        raise InputError(
            f"train.best_by={train.best_by}, but no pair of {wanted} is held out: {_REMEDY[wanted]}, or set "
            "train.best_by=mean"
        )
    if sizes:
        shown = " and ".join(f"{size} held-out pairs of {name}" for name, size in sizes.items())
        return f"train: {shown} are scored every {train.evaluate_every} steps"
    if train.export == "best":
        raise InputError(
            "train.export=best, but no pair is held out to find the best by: raise data.held_out_fraction or "
            "mix.held_out_fraction, or set train.export=last"
        )
    return "train: no pair is held out, so nothing is evaluated while training"


def _num_rows(run: RunDir, suite: str) -> int:
    if not run.exists("mix", "held_out", f"{suite}.parquet"):
        return 0
    with run.open_parquet(run.path("mix", "held_out", f"{suite}.parquet")) as file:
        return int(file.metadata.num_rows)


def _tokens(run: RunDir, chat: ChatFormat, suite: str) -> tuple[PairTokens, Counter[str]]:
    """The suite's sample as tokens: the first pairs by id hash, as music-ray evaluate takes them."""
    train = run.config.train
    rows: list[dict[str, Any]] = []
    if _num_rows(run, suite):
        with run.open_parquet(run.path("mix", "held_out", f"{suite}.parquet")) as file:
            columns = ["id", "source", "origin", "chosen", "rejected"]
            rows = file.read(columns=columns).to_pylist()
    rows.sort(key=lambda row: content_id(["evaluate", row["id"]]))
    table = tokenise_rows(chat, TokenRules.of(train), rows[: train.evaluate_pairs])
    reasons = table.column(DROPPED)
    kept = table.filter(pc.is_null(reasons)).drop_columns([DROPPED])
    return PairTokens(kept), Counter(reasons.drop_null().to_pylist())


def evaluation_line(line: dict[str, Any], train: TrainConfig) -> str:
    """One line of logs/evaluation.jsonl for a person."""
    parts = [f"train: held-out pairs after step {line['step']}/{train.steps}"]
    for name, suite in line["suites"].items():
        left_out = f", {suite['num_dropped']} left out" if suite["num_dropped"] else ""
        parts.append(
            f"{name}: accuracy {suite['accuracy']:.3f}, loss {suite['loss']:.4f}, margin "
            f"{suite['margin']:+.3f} ({suite['num_pairs']} pairs{left_out})"
        )
    return " · ".join(parts) + (" · the best so far" if line["best"] else "")
