"""What the audit found, as plain data that goes to audit.json as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature that helps to carry a view's AUC."""

    name: str
    coefficient: float
    """In a model that saw all pairs; of surface features, for standardised differences."""
    auc: float
    """Of this feature alone, without any model: above 0.5 when chosen has more of it."""

    @property
    def direction(self) -> str:
        """'more in chosen' or 'less in chosen'."""
        return "more in chosen" if self.auc > 0.5 else "less in chosen"


@dataclass(frozen=True, slots=True)
class View:
    """How well a linear model tells chosen from rejected by one kind of features of one part."""

    auc: float | None
    """Cross-validated; 0.5 is a coin. None when it can't be measured."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    reason: str = ""
    """Why there is no AUC; empty when there is one."""
    features: list[Feature] = field(default_factory=list)
    """What carries it, most first."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Messages of one side, and those among them that hold a marker."""

    messages: int
    with_marker: int

    @property
    def share(self) -> float:
        """0 where there is no message."""
        return self.with_marker / self.messages if self.messages else 0.0


@dataclass(frozen=True, slots=True)
class Marker:
    """How often something is said on either side, after the sides part."""

    name: str
    role: str
    """Who says it: assistant or user."""
    chosen: Rate
    rejected: Rate


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike the two sides' messages at one place are."""

    num_pairs: int
    equal: float
    """Share of pairs whose messages are the same, white space at the ends aside."""
    word_overlap: float
    """Mean of shared distinct words over all distinct words."""
    cosine: float
    """Mean TF-IDF cosine of words."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How far the branches have come apart at one turn."""

    turn: int
    """1 is the turn in which the sides part."""
    user: Likeness | None
    """None where the user message stands before the split or no pair has one on both sides."""
    reply: Likeness | None


@dataclass(frozen=True, slots=True)
class Audit:
    """The shortcut audit of a set of pairs."""

    origin: str
    """What the pairs are: D_MUSIC, D, or `pairs` for those of a file by itself."""
    num_pairs: int
    """Pairs looked at."""
    num_available: int
    """Pairs there were."""
    num_conversations: int
    max_auc: float
    confidence: float
    views: dict[str, View]
    """By kind/part: surface/whole, surface/user, …, tfidf/first_reply."""
    markers: list[Marker]
    turns: list[Turn]
    verdict: str
    """One sentence."""
    warnings: list[str]
    """One for each view whose AUC is above the bound, features named."""
    remedies: list[str]
    """What can be done about the warnings."""
    notes: list[str]
    preferences: Audit | None = None
    """The same audit of D's training part, to compare with."""

    @property
    def highest(self) -> str | None:
        """The name of the view with the highest AUC; None when none could be measured."""
        measured = {name: view.auc for name, view in self.views.items() if view.auc is not None}
        return max(measured, key=lambda name: measured[name]) if measured else None

    def as_json(self) -> dict[str, Any]:
        """Nested plain values."""
        return asdict(self)
