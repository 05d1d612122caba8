"""RewardBench's sections beside the numbers of the paper that the method is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from music_ray.report.numbers import Span, number, span, whole

AVERAGE = "average of the sections"
PAPER: dict[str, dict[str, float]] = {
    "paper, baseline": {
        "Chat": 0.969, "Chat Hard": 0.730, "Safety": 0.909, "Reasoning": 0.831, AVERAGE: 0.860,
    },
    "paper, MUSIC": {
        "Chat": 0.964, "Chat Hard": 0.724, "Safety": 0.908, "Reasoning": 0.870, AVERAGE: 0.866,
    },
}  # fmt: skip
"""arXiv 2512.24693: Gemma-2-9B-it trained on 73k Skywork pairs, and with 31k MUSIC pairs besides."""


@dataclass(frozen=True, slots=True)
class RewardBench:
    """All models of one evaluation."""

    num_pairs: int
    is_complete: bool
    """Whether every section has all its pairs; without, there is no average."""
    sections: list[tuple[str, dict[str, Span]]]
    """Name, and the score by the model's letter."""
    averages: list[tuple[str, dict[str, Span]]]
    lacking: list[tuple[str, str]]
    """A section without a score, and the subsets that it lacks."""

    @property
    def rows(self) -> list[tuple[str, dict[str, Span], list[float | None]]]:
        """Name, scores by letter, and the paper's numbers in the order of PAPER."""
        return [
            (name, scores, [column.get(name) for column in PAPER.values()])
            for name, scores in (*self.sections, *self.averages)
        ]


def read_rewardbench(documents: dict[str, Any], letters: dict[str, str]) -> RewardBench | None:
    """The table of an evaluation; None where no pair was of RewardBench.

    Args:
        documents: what evaluation.json says, by the model's name.
        letters: what each model is called, by name.
    """
    found = {letters[name]: one for name, one in documents.items() if one}
    if not found:
        return None
    first = next(iter(found.values()))
    return RewardBench(
        num_pairs=whole(first["num_pairs"]),
        is_complete=first["is_complete"] is True,
        sections=[
            (name, {letter: span(one["sections"][name], "score") for letter, one in found.items()})
            for name in first["sections"]
        ],
        averages=[
            (label, {letter: Span(number(one[key])) for letter, one in found.items()})
            for label, key in ((AVERAGE, "average"), ("average with prior sets", "average_with_prior_sets"))
        ],
        lacking=[
            (name, ", ".join([*map(str, one["missing"]), *map(str, one["incomplete"])]))
            for name, one in first["sections"].items()
            if one["score"] is None
        ],
    )
