"""How far a judge can be trusted: its bias for what it is shown first, and who agrees with it.

Knows recorded verdicts and the ids of the questions; asks nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from music_ray.evaluate.best_of_n.outcomes import verdict_on
from music_ray.evaluate.best_of_n.questions import repeat_id
from music_ray.judge.rows import Verdicts
from music_ray.judge.verdict import Verdict


def reliability(verdicts: Verdicts, asked: Sequence[int], twice: Sequence[int]) -> dict[str, Any]:
    """What a judge's verdicts say of the judge.

    Args:
        asked: ids of the questions, each once.
        twice: those that were asked a second time with other seeds.

    Returns:
        num_questions; verdicts, a count of each over both orders, and of error; first_position_wins: of the
        answers that name a winner, the share that names the conversation shown first (0.5 without position
        bias: each conversation stands first once); agreement_in_both_orders: of the questions with a verdict
        in each order, the share in which the two agree; num_repeated and agreement_on_repetition: of the
        questions with a verdict each time, the share in which it is the same. Shares are None where there
        is nothing to share.
    """
    counts: Counter[str] = Counter()
    answers = [said for one in asked if isinstance(said := verdicts.of(one), tuple)]
    for one in asked:
        together = verdict_on(verdicts, one)
        counts["error" if together is None else str(together)] += 1
    # Only where both orders were answered has each conversation stood first once.
    both = [said for said in answers if Verdict.INVALID not in said]
    winners = [one for said in both for one in said if one is not Verdict.TIE]
    pairs = _known([(verdict_on(verdicts, one), verdict_on(verdicts, repeat_id(one))) for one in twice])
    return {
        "num_questions": len(asked),
        "verdicts": {name: counts[name] for name in (*map(str, Verdict), "error")},
        "first_position_wins": _share([one is Verdict.A for one in winners]),
        "agreement_in_both_orders": _share([first is second.swapped for first, second in both]),
        "num_repeated": len(pairs),
        "agreement_on_repetition": _share([first is second for first, second in pairs]),
        "tokens": verdicts.tokens,
    }


def agreement(one: Verdicts, other: Verdicts, asked: Sequence[int]) -> dict[str, Any]:
    """How often two judges say the same of a question.

    Returns:
        num_questions that both have a verdict on; share of the same verdict, ties among them, and
        share_of_winners over those in which both name a winner; None where there are none.
    """
    pairs = _known([(verdict_on(one, id_), verdict_on(other, id_)) for id_ in asked])
    named = [pair for pair in pairs if Verdict.TIE not in pair]
    return {
        "num_questions": len(pairs),
        "share": _share([first is second for first, second in pairs]),
        "share_of_winners": _share([first is second for first, second in named]),
    }


def _known(pairs: Sequence[tuple[Verdict | None, Verdict | None]]) -> list[tuple[Verdict, Verdict]]:
    return [
        (first, second)
        for first, second in pairs
        if first and second and Verdict.INVALID not in (first, second)
    ]


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
