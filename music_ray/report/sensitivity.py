"""The turn-sensitivity curve as evaluation.json has it: how far a score falls when one turn is spoiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from music_ray.paired_tests import FEWEST_CONTEXTS
from music_ray.report.numbers import Span, counts, number, span, whole

KINDS = {"foreign": "another conversation's reply", "contrast": "the rejected side's reply"}
_VERDICTS = {
    "earlier_turns_too": "falls with a spoiled last reply, and with a spoiled earlier one",
    "last_turn_only": "falls with a spoiled last reply; no fall is seen with a spoiled earlier one",
    "earlier_turns_only": "falls with a spoiled earlier reply; no fall is seen with a spoiled last one",
    "earlier_turns_reversed": "reads earlier turns with the wrong sign: rises with a spoiled earlier reply",
    "neither": "no fall is seen",
    "too_few": "too few conversations to say",
}


@dataclass(frozen=True, slots=True)
class Point:
    """The conversations whose reply at one place was spoiled."""

    num_spoiled: int
    num_contexts: int
    unscored: int
    fall: Span
    """Of the score, raw."""
    fall_std: Span
    """In standard deviations of the model's scores of the good conversations."""
    fell: float
    """Share of the conversations whose score fell."""
    verdict: str
    """falls | rises | no fall seen | too few."""

    @property
    def has_interval(self) -> bool:
        """Whether there are contexts enough for an interval to be shown."""
        return self.num_contexts >= FEWEST_CONTEXTS

    @property
    def shown(self) -> Span:
        """The fall in standard deviations, with an interval where there is one to show."""
        return self.fall_std.where(self.has_interval)


@dataclass(frozen=True, slots=True)
class Curve:
    """One model and one kind of spoiled reply."""

    letter: str
    kind: str
    verdict: str
    last: Point
    earlier: Point
    """All replies before the last together."""
    by_distance: list[tuple[int, Point]]
    """Turns before the last, 0 first."""
    by_turn: list[tuple[int, Point]]

    @property
    def label(self) -> str:
        """The kind in words."""
        return KINDS[self.kind]

    @property
    def rows(self) -> list[tuple[str, Point]]:
        """All points with what they are of."""
        before = [(f"{distance} before the last", one) for distance, one in self.by_distance if distance]
        turns = [(f"of turn {turn}", one) for turn, one in self.by_turn]
        return [("last", self.last), ("all earlier", self.earlier), *before, *turns]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """All models on one pair set."""

    num_conversations: int
    num_contexts: int
    left_out: list[tuple[str, int]]
    curves: list[Curve]


def read_sensitivity(document: dict[str, Any] | None, letters: dict[str, str]) -> Sensitivity | None:
    """A pair set's curves; None where they were not measured.

    Args:
        letters: what each model is called, by name.
    """
    if not document:
        return None
    return Sensitivity(
        num_conversations=whole(document["num_conversations"]),
        num_contexts=whole(document["num_contexts"]),
        left_out=counts(document["left_out"]),
        curves=[
            _curve(letters[name], kind, one[kind])
            for name, one in document["models"].items()
            for kind in KINDS
            if one[kind]
        ],
    )


def _curve(letter: str, kind: str, document: dict[str, Any]) -> Curve:
    return Curve(
        letter=letter,
        kind=kind,
        verdict=_VERDICTS.get(document["verdict"], str(document["verdict"])),
        last=_point(document["last"]),
        earlier=_point(document["earlier"]),
        by_distance=_points(document["by_distance"]),
        by_turn=_points(document["by_turn"]),
    )


def _points(document: dict[str, Any]) -> list[tuple[int, Point]]:
    return [(int(place), _point(document[place])) for place in sorted(document, key=int)]


def _point(document: dict[str, Any]) -> Point:
    return Point(
        num_spoiled=whole(document["num_spoiled"]),
        num_contexts=whole(document["num_contexts"]),
        unscored=whole(document["unscored"]),
        fall=span(document, "fall"),
        fall_std=span(document, "fall_std"),
        fell=number(document["fell"]),
        verdict=str(document["verdict"]).replace("_", " "),
    )
