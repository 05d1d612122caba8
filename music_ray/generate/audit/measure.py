"""The audit of a list of pairs: every view, every marker, every turn. Pure: it reads and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from music_ray.config import AuditConfig
from music_ray.generate.audit.corpus import Corpus
from music_ray.generate.audit.divergence import MarkerCounts, compare_turns
from music_ray.generate.audit.probe import Probe, both_orders_auc, cross_validate
from music_ray.generate.audit.result import Audit, Feature, View
from music_ray.generate.audit.terms import Terms
from music_ray.generate.audit.verdict import marker_notes, remedies, verdict, warnings
from music_ray.generate.audit.views import MAX_TURNS, VIEWS, branches, feature_names, surface
from music_ray.schema import PreferencePair, content_id

MAX_TEXT_PAIRS = 5_000
"""Pairs whose words are looked at: vectors of words take far more memory than surface features."""
NUM_FEATURES = 8
"""Features that are kept of each view."""
_SURFACE_STRENGTH = 0.1
_TFIDF_STRENGTH = 1.0


def audit_pairs(
    pairs: list[PreferencePair], config: AuditConfig, seed: int, *, num_available: int | None = None
) -> Audit:
    """Looks for shortcuts: the same pairs, configuration and seed give the same audit, in any order.

    Args:
        pairs: any preference pairs; of more than config.max_pairs, the first by hash are looked at.
        seed: of the sample, the folds and the resampling; the run seed.
        num_available: how many pairs there were before they were sampled; len(pairs) when None.
    """
    available = len(pairs) if num_available is None else num_available
    pairs = sorted(pairs, key=lambda pair: (sample_key(seed, pair.id), pair.id))[: config.max_pairs]
    groups = np.array([pair.conversation for pair in pairs], dtype=np.int64)
    num_conversations = len(set(groups.tolist()))
    markers = MarkerCounts()
    rows = _surface_rows(pairs, markers)
    corpus = Corpus([branches(pair) for pair in pairs[:MAX_TEXT_PAIRS]])
    if reason := _too_few(len(pairs), num_conversations, config):
        nothing = View(None, None, None, reason)
        views = {f"{kind}/{name}": nothing for kind in ("surface", "tfidf") for name in VIEWS}
    else:
        views = {
            f"surface/{name}": _surface_view(rows[name], name, groups, config, seed) for name in VIEWS
        } | _tfidf_views(corpus, groups[:MAX_TEXT_PAIRS], config, seed)
    origin = "D_MUSIC" if any(pair.origin == "D_MUSIC" for pair in pairs) else "D"
    counted = markers.markers()
    return Audit(
        origin=origin,
        num_pairs=len(pairs),
        num_available=available,
        num_conversations=num_conversations,
        max_auc=config.max_auc,
        confidence=config.confidence,
        views=views,
        markers=counted,
        turns=compare_turns(corpus, MAX_TURNS),
        verdict=verdict(views, config, len(pairs)),
        warnings=warnings(views, config),
        remedies=remedies(views, config, origin),
        notes=_notes(len(pairs), available) + marker_notes(counted),
    )


def sample_key(seed: int, pair_id: str) -> int:
    """Pairs with the lowest keys are looked at: the same ones on every machine, whatever their order."""
    return content_id(["audit", seed, pair_id])


def _too_few(num_pairs: int, num_conversations: int, config: AuditConfig) -> str:
    if num_pairs < config.min_pairs:
        return f"{num_pairs} pairs are too few (audit.min_pairs is {config.min_pairs})"
    if num_conversations < 2 * config.folds:
        return f"{num_conversations} conversations are too few (twice audit.folds is {2 * config.folds})"
    return ""


def _notes(num_pairs: int, available: int) -> list[str]:
    notes = []
    if num_pairs < available:
        notes.append(f"{num_pairs:,} of {available:,} pairs were looked at (audit.max_pairs)")
    if num_pairs > MAX_TEXT_PAIRS:
        notes.append(f"tfidf views and the likeness of the branches are of {MAX_TEXT_PAIRS:,} of these pairs")
    return notes


# -- surface features ------------------------------------------------------------------------------


def _surface_rows(pairs: list[PreferencePair], markers: MarkerCounts) -> dict[str, np.ndarray]:
    """Differences of the features, a matrix [n, f] a view; each message is counted once."""
    rows = {name: np.zeros((len(pairs), len(feature_names(name)))) for name in VIEWS}
    for index, pair in enumerate(pairs):
        chosen, rejected = branches(pair)
        markers.add(chosen, rejected)
        for name in VIEWS:
            rows[name][index] = surface(chosen, name) - surface(rejected, name)
    return rows


def _surface_view(rows: np.ndarray, name: str, groups: np.ndarray, config: AuditConfig, seed: int) -> View:
    if not rows.any():
        return View(None, None, None, _no_difference(name))
    probe = cross_validate(rows, groups, config, seed, strength=_SURFACE_STRENGTH, standardise=True)
    return _view(probe, feature_names(name), lambda index: rows[:, index])


# -- TF-IDF ----------------------------------------------------------------------------------------


def _tfidf_views(corpus: Corpus, groups: np.ndarray, config: AuditConfig, seed: int) -> dict[str, View]:
    """The views by words; those that show the same texts (last and only reply) are measured once."""
    views: dict[str, View] = {}
    shown: dict[str, Any] = {}
    for name in VIEWS:
        sides = corpus.view(name)
        same = next((other for other, its in shown.items() if its == sides), None)
        views[f"tfidf/{name}"] = (
            views[f"tfidf/{same}"] if same else _tfidf_view(corpus.terms, sides, name, groups, config, seed)
        )
        shown[name] = sides
    return views


def _tfidf_view(
    terms: Terms, sides: tuple[Any, Any], name: str, groups: np.ndarray, config: AuditConfig, seed: int
) -> View:
    if sides[0] == sides[1]:
        return View(None, None, None, _no_difference(name))
    if not terms.names:
        return View(None, None, None, "the texts have no words")
    chosen, rejected = terms.vectors(*sides)
    rows = (chosen - rejected).astype(float).tocsr()
    probe = cross_validate(rows, groups, config, seed, strength=_TFIDF_STRENGTH, standardise=False)
    columns = rows.tocsc()
    names = [f"\u201c{term}\u201d" for term in terms.names]
    return _view(probe, names, lambda index: columns[:, [index]].toarray()[:, 0])


# -- both ------------------------------------------------------------------------------------------


def _view(probe: Probe, names: Sequence[str], column: Callable[[int], np.ndarray]) -> View:
    """The probe's numbers with the features that carry it: those that add most to the mean score."""
    order = np.argsort(-probe.shares, kind="stable")[:NUM_FEATURES]
    features = [
        Feature(
            names[index],
            round(float(probe.coefficients[index]), 4),
            round(both_orders_auc(column(index)), 4),
        )
        for index in order.tolist()
        if probe.shares[index] > 0
    ]
    return View(round(probe.auc, 4), round(probe.low, 4), round(probe.high, 4), "", features)


def _no_difference(view: str) -> str:
    what = {"user": "user messages", "last_reply": "last replies", "first_reply": "first replies"}.get(view)
    return f"the {what} are the same on both sides" if what else "the two sides are the same"
