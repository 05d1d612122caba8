"""What a language model's own conversations give: suite S2, preferences by the exact judge, error rates.

The samples come from elsewhere, e.g. the chosen branches of rollouts. This module does not know models.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from music_ray.judge.verdict import Verdict
from music_ray.miniature.balance import Exchangeable
from music_ray.miniature.check import compare, examine, wrong_turns
from music_ray.miniature.place import rederived
from music_ray.miniature.suites import EARLY, FINAL, Cell, SuitePair, counts
from music_ray.schema import Message, content_id, count_user_turns

_UNLIMITED = 10**9


def natural_errors(
    samples: Iterable[Sequence[Message]], *, cells: Sequence[Cell] = EARLY, per_cell: int | None = None
) -> list[SuitePair]:
    """S2: a model's own early errors, beside the same conversation with right replies.

    Rejected is a sample as it is: every user message in it is understood, its final reply is right, and an
    earlier one is wrong. Chosen has the same user messages, and every reply is right given its own history:
    what the model would have said without the error. Lengths are exchangeable, and cells equally full.

    Args:
        samples: conversations that end on a reply.
        per_cell: pairs of each cell at most; as many as the scarcest cell has in any case.
    """
    found = [
        pair
        for number, sample in enumerate(samples)
        if (pair := _corrected("S2", number, sample)) and wrong_turns(sample)[-1] < pair.num_turns
    ]
    return _even(found, cells, per_cell)


def natural_final_errors(
    samples: Iterable[Sequence[Message]],
    *,
    cells: Sequence[Cell] = FINAL,
    per_cell: int | None = None,
    equally_full: bool = True,
) -> list[SuitePair]:
    """A model's own errors in final turns: whether a reward model can check them at all.

    Rejected is a sample up to its first wrong reply; chosen has the right one there. Lengths and cells as in
    natural_errors.

    Args:
        samples: conversations that end on a reply.
        per_cell: pairs of each cell at most; as many as the scarcest cell has in any case.
        equally_full: False keeps all that lengths allow, of one cell more than of another.
    """
    found = []
    for number, sample in enumerate(samples):
        wrong = wrong_turns(sample)
        if not wrong:
            continue
        cut = list(sample[: 2 * wrong[0]])
        if pair := _corrected("natural_final", number, cut):
            found.append(pair)
    if equally_full:
        return _even(found, cells, per_cell)
    kept = _balanced(found, dict.fromkeys(cells, _UNLIMITED if per_cell is None else per_cell))
    return [pair for pairs in kept.values() for pair in pairs]


def _even(found: Sequence[SuitePair], cells: Sequence[Cell], per_cell: int | None) -> list[SuitePair]:
    least = min(len(pairs) for pairs in _balanced(found, dict.fromkeys(cells, _UNLIMITED)).values())
    quota = least if per_cell is None else min(least, per_cell)
    kept = _balanced(found, dict.fromkeys(cells, quota))
    return [pair for pairs in kept.values() for pair in pairs]


def natural_preferences(samples: Iterable[Sequence[Message]]) -> list[dict[str, Any]]:
    """Rows of preferences between samples of one context, as the exact judge sees them (arm A6).

    Each sample goes with the first one before it that has the same first message and as many turns, and is
    better or worse; what finds none waits for a later one. No sample stands in two rows, and no two rows are
    equal.
    """
    waiting: dict[tuple[str, int], list[list[Message]]] = defaultdict(list)
    rows: dict[str, dict[str, Any]] = {}
    for sample in map(list, samples):
        others = waiting[sample[0]["content"], count_user_turns(sample)]
        verdicts = [compare(sample, other) for other in others]
        better = next((at for at, verdict in enumerate(verdicts) if verdict is not Verdict.TIE), None)
        if better is None:
            others.append(sample)
            continue
        other = others.pop(better)
        chosen, rejected = (sample, other) if verdicts[better] is Verdict.A else (other, sample)
        row_id = f"natural-{content_id([chosen, rejected]):016x}"
        rows.setdefault(row_id, {"id": row_id, "source": "natural", "chosen": chosen, "rejected": rejected})
    return list(rows.values())


def error_rates(samples: Iterable[Sequence[Message]]) -> dict[int, dict[str, int]]:
    """Of each turn, counted from 1: how many replies are right, wrong, or answer what can't be understood."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        for turn in examine(sample):
            verdict = "right" if turn.right else "wrong" if turn.expectation else "not_understood"
            counts[turn.number][verdict] += 1
    return {
        number: {name: count[name] for name in ("right", "wrong", "not_understood")}
        for number, count in sorted(counts.items())
    }


def _balanced(pairs: Sequence[SuitePair], quota: dict[Cell, int]) -> dict[Any, list[SuitePair]]:
    kept: Exchangeable[SuitePair] = Exchangeable(dict(quota))
    for pair in pairs:
        cell = (pair.num_turns, pair.error_turn)
        if cell in quota:
            # Lengths alone: samples are dear, and with more counts two in three find no mirror image.
            (chosen, rejected, _), _ = counts(pair.chosen, pair.rejected)
            lengths = (chosen[:2], rejected[:2])
            kept.offer(cell, "natural", lengths, lengths[::-1], pair)
    return kept.kept


def _corrected(suite: str, number: int, sample: Sequence[Message]) -> SuitePair | None:
    turns = examine(sample)
    wrong = [turn.number for turn in turns if not turn.right]
    if not wrong or len(sample) != 2 * len(turns):
        return None
    chosen = rederived(sample, after=0)
    if wrong_turns(chosen):  # a message is not understood, or about a reply that there is not
        return None
    error = turns[wrong[0] - 1]
    assert error.ask is not None
    operation = error.ask.instruction.operation
    return SuitePair(suite, number, error.number, "natural", operation, chosen, list(sample))
