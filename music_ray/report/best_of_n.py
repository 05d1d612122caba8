"""What `music-ray best-of-n` found: win rates by N with their intervals, from results.json of one folder.

Models are called A, B, … in the order of the command. Knows the document, not HTML or charts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from music_ray.report.any_model import digests_of
from music_ray.report.given import BEST_OF_N, Place, read_results
from music_ray.report.jsonlines import naming_damage
from music_ray.report.numbers import Span, counts, letter, number, span, whole
from music_ray.report.show import count

_PICKERS = {"random": "random picks", "oracle": "the oracle"}


@dataclass(frozen=True, slots=True)
class Rate:
    """Two pickers with one N and one selection."""

    selection: str
    """turn or whole."""
    n: int
    num_prompts: int
    wins: int
    losses: int
    same: int
    tie: int
    invalid: int
    unanswered: int
    num_counted: int
    """Prompts with an outcome: neither invalid nor unanswered."""
    win_rate: Span
    """Over these, ties and equal picks being half a win."""
    differing: Span
    """Over those of them with different picks."""
    controlled: Span
    """The same at equal length."""


@dataclass(frozen=True, slots=True)
class Match:
    """Two pickers, and who judged."""

    first: str
    second: str
    judged_by: str
    rates: list[Rate]
    slopes: list[tuple[str, Span]]
    """Selection, and the change of the win rate with each doubling of N."""

    @property
    def selections(self) -> list[str]:
        """In the order of the document."""
        return list(dict.fromkeys(one.selection for one in self.rates))


@dataclass(frozen=True, slots=True)
class Judge:
    """How far a judge can be trusted."""

    name: str
    model: str
    num_questions: int
    first_position_wins: float
    both_orders_agree: float
    num_repeated: int
    """Questions with a verdict each of the two times they were asked."""
    repetition_agrees: float
    """Of these, the share with the same verdict; not a number where there are none."""
    why_not_repeated: str
    """Why there are none; empty where there are, and in results that do not say it."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two judges say of the same questions."""

    num_questions: int
    """Those that both have a verdict on."""
    share: float
    """With the same verdict."""
    share_of_winners: float
    """The same, where both name a winner."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How good a picker's conversations are by the checker."""

    picker: str
    selection: str
    n: int
    num_prompts: int
    mean: Span


@dataclass(frozen=True, slots=True)
class BestOfN:
    """One folder's results."""

    place: Place
    models: dict[str, str]
    """Name by letter."""
    num_prompts: int
    turns: int
    confidence: float
    matches: list[Match]
    judges: list[Judge]
    judges_agree: Agreement | None
    """None where there are not two judges."""
    checked: list[Checked]
    notes: list[str]
    """What must be said beside the numbers."""
    warnings: list[str]
    digests: dict[str, str] = field(default_factory=dict)
    """Of the files that decide each model's scores, by letter."""
    prompts: str = ""
    """A digest of the first prompts; empty in results of versions that did not record it."""


def read_best_of_n(place: Place) -> BestOfN:
    """The results in a folder.

    Raises:
        InputError: the document is damaged.
    """
    document: dict[str, Any] = dict(read_results(place, BEST_OF_N))
    with naming_damage("it", "run the same music-ray best-of-n again"):
        return _best_of_n(place, document)


def _best_of_n(place: Place, document: dict[str, Any]) -> BestOfN:
    names = {letter(index): str(one["name"]) for index, one in enumerate(document["models"])}
    pickers = _PICKERS | {one["digest"]: letter(index) for index, one in enumerate(document["models"])}
    settings = document["settings"]
    return BestOfN(
        place=place,
        models=names,
        num_prompts=whole(document["rows"]["ok"]),
        turns=whole(settings["turns"]),
        confidence=number(settings["confidence"]),
        matches=_matches(document, pickers),
        judges=[_judge(name, one) for name, one in document["judges"].items()],
        judges_agree=_agreement(document.get("judges_agree")),
        checked=[
            Checked(
                pickers.get(one["picker"], str(one["picker"])),
                str(one["selection"]),
                whole(one["n"]),
                whole(one["num_prompts"]),
                span(one, "mean"),
            )
            for one in document["checked"]
        ],
        notes=_notes(document, pickers),
        warnings=[str(one) for one in document["warnings"]],
        digests=digests_of(document["models"]),
        prompts=str((document.get("prompts") or {}).get("digest") or ""),
    )


def _matches(document: dict[str, Any], pickers: dict[str, str]) -> list[Match]:
    def who(one: dict[str, Any]) -> tuple[str, str, str]:
        return one["first"], one["second"], one["judged_by"]

    matches = []
    for key, group in groupby(document["comparisons"], key=who):
        first, second, judged_by = key
        slopes = [
            (str(one["selection"]), span(one, "slope")) for one in document["trends"] if who(one) == key
        ]
        names = pickers.get(first, str(first)), pickers.get(second, str(second))
        judge = str(judged_by).replace("_", " ")
        matches.append(Match(*names, judge, [_rate(one) for one in group], slopes))
    return matches


def _notes(document: dict[str, Any], pickers: dict[str, str]) -> list[str]:
    unscored = [
        f"{pickers.get(one['picker'], one['picker'])}, by {one['selection']} from {one['n']}: "
        f"{count(whole(one['num_unscored']))} of {count(whole(one['num_candidates']))} candidates have no "
        "score and could not be picked"
        for one in document.get("unscored", [])
    ]
    errors = [
        f"{count(number)} prompts have no conversations: {reason}"
        for reason, number in counts(document["rows"]["errors"])
    ]
    return [*errors, *unscored]


def _rate(one: dict[str, Any]) -> Rate:
    # Results from before num_counted was written have its parts.
    outcomes = [whole(one[name]) for name in ("first_wins", "second_wins", "same", "tie")]
    return Rate(
        selection=str(one["selection"]),
        n=whole(one["n"]),
        num_prompts=whole(one["num_prompts"]),
        wins=whole(one["first_wins"]),
        losses=whole(one["second_wins"]),
        same=whole(one["same"]),
        tie=whole(one["tie"]),
        invalid=whole(one["invalid"]),
        unanswered=whole(one["unanswered"]),
        num_counted=whole(one.get("num_counted", sum(outcomes))),
        win_rate=span(one, "win_rate"),
        differing=span(one, "win_rate_differing"),
        controlled=span(one, "length_controlled"),
    )


def _judge(name: str, one: dict[str, Any]) -> Judge:
    return Judge(
        name=name.replace("_", " "),
        model=str(one["model"]),
        num_questions=whole(one["num_questions"]),
        first_position_wins=number(one["first_position_wins"]),
        both_orders_agree=number(one["agreement_in_both_orders"]),
        num_repeated=whole(one.get("num_repeated")),
        repetition_agrees=number(one.get("agreement_on_repetition")),
        why_not_repeated=str(one.get("why_not_repeated") or ""),
    )


def _agreement(document: dict[str, Any] | None) -> Agreement | None:
    if not document:
        return None
    return Agreement(
        num_questions=whole(document["num_questions"]),
        share=number(document["share"]),
        share_of_winners=number(document["share_of_winners"]),
    )
