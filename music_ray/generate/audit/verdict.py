"""What the audit's numbers mean, in sentences: the verdict, warnings, and what can be done.

This module knows numbers and words for them; it measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from music_ray.config import AuditConfig
from music_ray.generate.audit.features import LENGTH_FEATURES
from music_ray.generate.audit.result import Feature, Marker, View

_NAMED = 3
"""Features that a warning names."""
_MARKER_GAP = 0.05
"""Difference of the sides' shares of messages from which a marker is mentioned."""

_LENGTH = (
    "the sides differ in length: lower pairs.gates.max_length_ratio (the gate length_ratio; only the pairs "
    "stage is run again), or ask both sides for the same length in the prompts"
)
_USER = (
    "the user messages give the label away: set user.history=replay_chosen, and both sides have the same ones"
)
_MODE = "try another contrast.mode, or a contrast prompt that asks for the same tone and form as a good reply"
_NOT_MUSIC = "leave out pairs that show the shortcut, or add pairs in which it points the other way"


def verdict(views: Mapping[str, View], config: AuditConfig, num_pairs: int) -> str:
    """One sentence on all views together."""
    measured = {name: view for name, view in views.items() if view.auc is not None}
    if not measured:
        return f"No AUC was measured: {views['surface/whole'].reason}."
    name = max(measured, key=lambda one: measured[one].auc or 0.0)
    best = numbers(measured[name])
    above = [one for one, view in measured.items() if is_above(view, config.max_auc)]
    if above:
        return (
            f"A linear model tells chosen from rejected by {name} with AUC {best}, above audit.max_auc "
            f"({config.max_auc:g}): a reward model can learn that instead of quality."
        )
    if (measured[name].auc or 0.0) > config.max_auc:
        return (
            f"Not settled: {name} has AUC {best}, and audit.max_auc ({config.max_auc:g}) lies inside the "
            f"interval; more pairs than {num_pairs:,} would tell."
        )
    return f"No shortcut above audit.max_auc ({config.max_auc:g}): the highest AUC is {best}, of {name}."


def is_above(view: View, bound: float) -> bool:
    """Whether a view's whole interval lies above a bound."""
    return view.low is not None and view.low > bound


def warnings(views: Mapping[str, View], config: AuditConfig) -> list[str]:
    """A sentence for each view whose whole interval lies above the bound."""
    return [
        f"{name}: AUC {numbers(view)}, carried by "
        + ", ".join(f"{one.name} ({one.direction})" for one in view.features[:_NAMED])
        for name, view in views.items()
        if is_above(view, config.max_auc)
    ]


def remedies(views: Mapping[str, View], config: AuditConfig, origin: str) -> list[str]:
    """What can be done about the views that are warned of."""
    above = {name: view for name, view in views.items() if is_above(view, config.max_auc)}
    if not above:
        return []
    if origin != "D_MUSIC":
        return [_NOT_MUSIC]
    carriers = [one for view in above.values() for one in view.features[:_NAMED]]
    found = []
    if any(map(_is_length, carriers)):
        found.append(_LENGTH)
    if any(name.endswith("/user") for name in above) or any(one.name.startswith("user:") for one in carriers):
        found.append(_USER)
    return [*found, _MODE]


def marker_notes(markers: Sequence[Marker]) -> list[str]:
    """Markers that one side shows clearly more often than the other."""
    notes = []
    for one in markers:
        if abs(one.rejected.share - one.chosen.share) >= _MARKER_GAP:
            who = "user messages" if one.role == "user" else "replies"
            notes.append(
                f"{one.name} are in {one.rejected.share:.1%} of the rejected side's {who} and in "
                f"{one.chosen.share:.1%} of the chosen side's"
            )
    return notes


def numbers(view: View) -> str:
    """An AUC with its interval: 0.83 (0.80 to 0.86)."""
    return f"{view.auc:.2f} ({view.low:.2f} to {view.high:.2f})"


def _is_length(feature: Feature) -> bool:
    name = feature.name.partition(": ")[2]
    return name in LENGTH_FEATURES or name.startswith("words in turn")
