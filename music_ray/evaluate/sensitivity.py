"""The turn-sensitivity curve: how far a model's score falls when the reply at turn k is spoiled.

A model that looks at the last reply only falls at distance 0 from the end and nowhere before it. Falls are
given raw and in standard deviations of the model's own scores of the good conversations, so that models can
be compared. What spoiled replies are is music_ray.evaluate.spoil's; how scores come about is the scorer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.errors import InputError
from music_ray.evaluate.sides import Model, Scored, Tools, score_conversations
from music_ray.evaluate.spoil import KINDS, SAMPLE, Spoiled, Spoiling, spoil
from music_ray.evaluate.stats import Resampling, bootstrap_mean
from music_ray.evaluate.summary import Found, Suite
from music_ray.paired_tests import FEWEST_CONTEXTS
from music_ray.progress import say
from music_ray.rundir import RunDir

SAME_WITHIN = 1e-3
"""Standard deviations of good scores: a smaller change is a rounding of the model's arithmetic, no change."""
FALLS, RISES, NO_FALL, TOO_FEW = "falls", "rises", "no_fall_seen", "too_few"


def spoil_sets(suites: Sequence[Suite], seed: int) -> list[Spoiling]:
    """What can be spoiled of each set.

    Raises:
        InputError: no set has a good conversation.
    """
    found = [spoil(one.pairs.pairs, seed) for one in suites]
    if not any(one.spoiled for one in found):
        raise InputError(
            "--sensitivity spoils one turn of conversations of two turns or more, and no chosen side of "
            "these pairs can be spoiled: name pairs of several longer conversations, or leave it out"
        )
    return found


def measure(
    run: RunDir,
    suite: Suite,
    spoiling: Spoiling,
    found: dict[str, Found],
    models: Sequence[Model],
    tools: Tools,
    words: Sequence[str],
    resampling: Resampling,
) -> dict[str, Any] | None:
    """Scores the spoiled conversations of a set with every model, and writes a row for each.

    Args:
        found: by the model's name: the good conversations' scores are in it.
        words: overrides for the scorer.

    Returns:
        what evaluation.json says of the set's sensitivity; None where nothing can be spoiled.

    Raises:
        MusicRayError: as the scorer.
    """
    if not spoiling.spoiled:
        return None
    name, spoiled = suite.pairs.name, spoiling.spoiled
    by_model = {}
    for model in models:
        say(f"evaluate: {len(spoiled)} spoiled conversations of {name} with {model.name}")
        conversations = [one.messages for one in spoiled]
        scored = score_conversations(run, f"{name}-spoiled", conversations, model, tools, words)
        whole = found[model.name].whole
        _write_rows(run, suite, spoiled, whole, scored, model)
        by_model[model.name] = of_model(spoiling, whole, scored, suite.facts.contexts, resampling)
    return {
        "num_conversations": len(spoiling.good),
        "num_contexts": len(np.unique(suite.facts.contexts[spoiling.good])),
        "num_spoiled": {kind: sum(one.kind == kind for one in spoiled) for kind in KINDS},
        "left_out": dict(sorted(spoiling.left_out.items())),
        "no_foreign_reply": spoiling.no_foreign_reply,
        "sample": SAMPLE,
        "same_within": SAME_WITHIN,
        "models": by_model,
    }


def of_model(
    spoiling: Spoiling, whole: Scored, scored: Scored, contexts: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    """One model's curves.

    Args:
        whole: the scores of the pairs, in their order; the chosen sides are the good conversations.
        scored: the scores of the spoiled conversations.
        contexts: of the pairs, [n].

    Returns:
        good_mean and good_std, of the good conversations' scores; and for each kind of spoiled reply its
        `last` reply, all `earlier` ones together, `by_turn`, `by_distance` and a verdict.
    """
    good = whole.scores[spoiling.good, 0]
    good = good[np.isfinite(good)]
    std = float(good.std(ddof=1)) if len(good) > 1 else 0.0
    index = np.array([one.index for one in spoiling.spoiled])
    turns = np.array([one.turn for one in spoiling.spoiled])
    distances = np.array([one.distance for one in spoiling.spoiled])
    kinds = np.array([one.kind for one in spoiling.spoiled])
    falls = whole.scores[index, 0] - scored.scores[:, 0]
    longer = scored.num_tokens[:, 0] - whole.num_tokens[index, 0]

    def cell(part: np.ndarray) -> dict[str, Any]:
        return _cell(falls[part], longer[part], contexts[index[part]], std, resampling)

    result: dict[str, Any] = {
        "num_good": len(good),
        "good_mean": float(good.mean()) if len(good) else None,
        "good_std": std if std > 0 else None,
        "unscored_reasons": scored.counts(),
    }
    for kind in KINDS:
        there = kinds == kind
        if not there.any():
            result[kind] = None
            continue
        by_distance = _by(cell, there, distances)
        last, earlier = cell(there & (distances == 0)), cell(there & (distances > 0))
        result[kind] = {
            "verdict": verdict(last["verdict"], earlier["verdict"]),
            "last": last,
            "earlier": earlier,
            "by_turn": _by(cell, there, turns),
            "by_distance": by_distance,
        }
    return result


def _by(cell: Any, there: np.ndarray, column: np.ndarray) -> dict[str, dict[str, Any]]:
    return {str(value): cell(there & (column == value)) for value in np.unique(column[there]).tolist()}


def _cell(
    falls: np.ndarray, longer: np.ndarray, contexts: np.ndarray, std: float, resampling: Resampling
) -> dict[str, Any]:
    """One point of a curve; falls are not a number where a score is missing.

    The interval in standard deviations takes these as known: it is the raw one in other units.
    """
    known = np.isfinite(falls)
    result: dict[str, Any] = {
        "num_spoiled": int(known.sum()),
        "num_contexts": len(np.unique(contexts[known])),
        "unscored": int((~known).sum()),
        **dict.fromkeys(("fall", "fall_low", "fall_high", "fall_std", "fall_std_low", "fall_std_high")),
        **dict.fromkeys(("fell", "same", "rose", "longer")),
        "verdict": TOO_FEW,
    }
    if not known.any():
        return result
    falls = falls[known]
    found = bootstrap_mean(falls, contexts[known], resampling)
    result |= {"fall": found.value, "fall_low": found.low, "fall_high": found.high}
    if std > 0:
        for name in ("fall", "fall_low", "fall_high"):
            result[name.replace("fall", "fall_std")] = result[name] / std
    result |= {
        "fell": float((falls > SAME_WITHIN * std).mean()),
        "same": float((np.abs(falls) <= SAME_WITHIN * std).mean()),
        "rose": float((falls < -SAME_WITHIN * std).mean()),
        "longer": float(longer[known].mean()),
    }
    if result["num_contexts"] >= FEWEST_CONTEXTS:
        result["verdict"] = _said(found.low, found.high, SAME_WITHIN * std)
    return result


def _said(low: float, high: float, rounding: float) -> str:
    """An interval without zero says something, unless it lies within what rounding does."""
    if low > 0 and high > rounding:
        return FALLS
    return RISES if high < 0 and low < -rounding else NO_FALL


def verdict(last: str, earlier: str) -> str:
    """What the verdicts on the last reply and on all earlier ones together say of a model.

    Returns:
        earlier_turns_too, last_turn_only, earlier_turns_only, neither, or too_few to say; and
        earlier_turns_reversed, whatever the last reply does, where the score rises with a spoiled earlier
        one: such a model reads earlier turns, with the wrong sign.
    """
    if TOO_FEW in (last, earlier):
        return TOO_FEW
    if earlier == RISES:
        return "earlier_turns_reversed"
    return {
        (True, True): "earlier_turns_too",
        (True, False): "last_turn_only",
        (False, True): "earlier_turns_only",
        (False, False): "neither",
    }[last == FALLS, earlier == FALLS]


def _write_rows(
    run: RunDir, suite: Suite, spoiled: list[Spoiled], whole: Scored, scored: Scored, model: Model
) -> None:
    pairs = suite.pairs.pairs
    good = whole.scores[[one.index for one in spoiled], 0]
    bad = scored.scores[:, 0]
    table = pa.table(
        {
            "id": [pairs[one.index].id for one in spoiled],
            "context": suite.facts.contexts[[one.index for one in spoiled]],
            "kind": [one.kind for one in spoiled],
            "turn": [one.turn for one in spoiled],
            "num_turns": [one.num_turns for one in spoiled],
            "good_score": pa.array(good, mask=np.isnan(good)),
            "spoiled_score": pa.array(bad, mask=np.isnan(bad)),
            "good_tokens": whole.num_tokens[[one.index for one in spoiled], 0],
            "spoiled_tokens": scored.num_tokens[:, 0],
            "reason": scored.reasons,
        }
    )
    named = table.replace_schema_metadata({"music_ray.model_name": model.name})
    run.write_table(named, suite.pairs.name, f"sensitivity-{model.slug}.parquet")
