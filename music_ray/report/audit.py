"""The shortcut audit as the page shows it, from audit/audit.json.

It knows the file's form and how to word its numbers; it does not know how they were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from music_ray.errors import InputError
from music_ray.report.jsonlines import read_object
from music_ray.rundir import RunDir

FILE = ("audit", "audit.json")
VERSION = 1
"""The newest audit.json that is understood."""
_NAMED = 4
"""Features that are named of a view."""


@dataclass(frozen=True, slots=True)
class Auc:
    """A cross-validated AUC with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ViewRow:
    """One kind of features of one part, of D_MUSIC beside D."""

    name: str
    music: Auc | None
    preferences: Auc | None
    is_above: bool
    """The whole interval of the MUSIC pairs lies above the bound."""
    carried_by: str
    """The features that carry it, where the interval lies above 0.5; else why there is no AUC."""


@dataclass(frozen=True, slots=True)
class TurnRow:
    """Words shared and pairs equal at one turn; None where there is nothing to compare."""

    turn: int
    user: dict[str, float] | None
    reply: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class MarkerRow:
    """How many messages of either side hold a marker."""

    name: str
    of: str
    chosen: tuple[int, int]
    """Messages with the marker, messages."""
    rejected: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AuditSection:
    """audit/audit.json, ready to be shown."""

    num_pairs: int
    num_conversations: int
    confidence: float
    max_auc: float
    views: list[ViewRow]
    turns: list[TurnRow]
    markers: list[MarkerRow]
    verdict: str
    warnings: list[str]
    remedies: list[str]
    notes: list[str]
    has_preferences: bool
    is_outdated: bool
    """The pairs have been made again since."""


def read_audit(run: RunDir) -> AuditSection | None:
    """The audit, or None when there is none.

    Raises:
        InputError: the file is damaged, or was written by a newer music_ray.
    """
    if not run.exists(*FILE):
        return None
    document = read_object(run, *FILE)
    if document is None:
        raise InputError(f"it is no JSON object: run `music-ray audit {run.display()}` again")
    if (version := document.get("audit_version")) != VERSION:
        raise InputError(f"it has version {version}, but this music_ray reads {VERSION}: audit the run again")
    try:
        made_from = run.manifest()["stages"].get("pairs", {}).get("output", "")
        return _section(document, is_outdated=document["pairs_output"] != made_from)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"it is damaged ({error}): run `music-ray audit {run.display()}` again") from None


def _section(document: dict[str, Any], *, is_outdated: bool) -> AuditSection:
    preferences = document["preferences"]
    bound = document["max_auc"]
    return AuditSection(
        num_pairs=document["num_pairs"],
        num_conversations=document["num_conversations"],
        confidence=document["confidence"],
        max_auc=bound,
        views=[
            _view(name, view, preferences["views"].get(name) if preferences else None, bound)
            for name, view in document["views"].items()
        ],
        turns=[TurnRow(one["turn"], one["user"], one["reply"]) for one in document["turns"]],
        markers=[
            MarkerRow(
                one["name"],
                "user messages" if one["role"] == "user" else "replies",
                _rate(one["chosen"]),
                _rate(one["rejected"]),
            )
            for one in document["markers"]
        ],
        verdict=document["verdict"],
        warnings=list(document["warnings"]),
        remedies=list(document["remedies"]),
        notes=list(document["notes"]),
        has_preferences=preferences is not None,
        is_outdated=is_outdated,
    )


def _view(name: str, music: dict[str, Any], preferences: dict[str, Any] | None, bound: float) -> ViewRow:
    auc = _auc(music)
    carried_by = music["reason"]
    if auc is not None and auc.low > 0.5:
        carried_by = ", ".join(map(_feature, music["features"][:_NAMED]))
    return ViewRow(
        name=name,
        music=auc,
        preferences=_auc(preferences) if preferences else None,
        is_above=auc is not None and auc.low > bound,
        carried_by=carried_by,
    )


def _auc(view: dict[str, Any]) -> Auc | None:
    return None if view["auc"] is None else Auc(view["auc"], view["low"], view["high"])


def _feature(feature: dict[str, Any]) -> str:
    """As in 'replies: words (less in chosen, alone 0.12)'."""
    direction = "more" if feature["auc"] > 0.5 else "less"
    return f"{feature['name']} ({direction} in chosen, alone {feature['auc']:.2f})"


def _rate(rate: dict[str, Any]) -> tuple[int, int]:
    return rate["with_marker"], rate["messages"]
