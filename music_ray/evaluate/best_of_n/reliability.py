"""How far a judge can be trusted: its bias for what it is shown first, and who agrees with it.

Knows recorded verdicts and the ids of the questions; asks nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from music_ray.evaluate.best_of_n.outcomes import verdict_on
from music_ray.evaluate.best_of_n.questions import repeat_id
from music_ray.judge.orders import Orders
from music_ray.judge.rows import Verdicts
from music_ray.judge.verdict import Verdict


def reliability(
    verdicts: Verdicts, asked: Sequence[int], twice: Sequence[int], why_once: str = ""
) -> dict[str, Any]:
    """What a judge's verdicts say of the judge.

    Args:
        asked: ids of the questions, each once.
        twice: those that were asked a second time with other seeds.
        why_once: why none was; empty where some were to be.

    Returns:
        num_questions; verdicts, a count of each over both orders, and of error; first_position_wins and
        agreement_in_both_orders (see Orders); num_repeated and agreement_on_repetition: of the questions
        with a verdict each time, the share in which it is the same; why_not_repeated, empty where there is
        such a share; tokens of these questions, by kind. Shares are None where there is nothing to share.
    """
    counts: Counter[str] = Counter()
    orders = Orders()
    for one in asked:
        together, said = verdict_on(verdicts, one), verdicts.of(one)
        counts["error" if together is None else str(together)] += 1
        if isinstance(said, tuple):
            orders.add(*said)
    pairs = _known([(verdict_on(verdicts, one), verdict_on(verdicts, repeat_id(one))) for one in twice])
    return {
        "num_questions": len(asked),
        "verdicts": {name: counts[name] for name in (*map(str, Verdict), "error")},
        "first_position_wins": orders.first_position_wins,
        "agreement_in_both_orders": orders.agreement_in_both_orders,
        "num_repeated": len(pairs),
        "agreement_on_repetition": _share([first is second for first, second in pairs]),
        "why_not_repeated": "" if pairs else why_once or "no question has a verdict each time",
        # The folder may hold answers to questions that are not asked any more.
        "tokens": verdicts.tokens_of([*asked, *map(repeat_id, twice)]),
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
