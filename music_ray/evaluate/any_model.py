"""`music-ray evaluate --model A --model B --pairs FILE`: any reward models on any pair sets.

Assembles: models by name, pair sets, their scores, and what is computed from those; knows no statistics and
no model. Everything is written below one folder, and the same command goes on in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError, InputError
from music_ray.evaluate.model_names import local_model
from music_ray.evaluate.pair_sets import read_pair_sets
from music_ray.evaluate.sensitivity import measure, spoil_sets
from music_ray.evaluate.sides import Model, Scored, Sides, Tools, score_sides
from music_ray.evaluate.stats import Resampling
from music_ray.evaluate.summary import Found, Suite, rewardbench_of, summarise
from music_ray.evaluate.verdicts import Verdicts, check_apart, match, read_verdicts, up_to_turn
from music_ray.progress import say
from music_ray.provenance import versions
from music_ray.public import public_place, without_credentials
from music_ray.rundir import RunDir

FILE = "evaluation.json"
_OWN_SECTIONS = ("evaluate.", "seed=")
"""Overrides that say how intervals are made; all others are the scorer's."""
_PLAIN = "score.engine=huggingface"
"""What scores where the command does not say it."""


def evaluate_models(
    models: Sequence[str],
    places: Sequence[str],
    out: str | None,
    verdicts: str | None,
    words: Sequence[str],
    tools: Tools,
    *,
    sensitivity: bool = False,
) -> dict[str, Any]:
    """Scores every pair set with every model; writes evaluation.json and a file of scores for each.

    Args:
        models: folders, ids of the hub, or untrained:RUN.
        places: files, folders or hub data sets of pairs.
        out: folder or URI; evaluations/FIRST_SET where there is none.
        verdicts: a file of a judge's verdicts on the pairs.
        words: KEY=VALUE overrides: evaluate.* and seed for the intervals, the others as for `score`.
        sensitivity: also spoil single turns of the chosen sides, and measure how far scores fall.

    Returns:
        what evaluation.json holds.

    Raises:
        MusicRayError: a user's mistake, found before anything is scored where it can be; or as the scorer.
    """
    sets = read_pair_sets(list(places), tools.hub_rows)
    run = _folder(out or f"evaluations/{sets[0].name}", words)
    config = run.config.evaluate
    suites = [Suite(one, one.facts(), []) for one in (one.first(config.max_pairs) for one in sets)]
    told: dict[str, Any] | None = None
    if verdicts is not None:
        suites, told = _with_verdicts(suites, verdicts)
    spoilings = spoil_sets(suites, run.config.seed) if sensitivity else []
    words = words if any(word.startswith("score.engine=") for word in words) else [_PLAIN, *words]
    named = _open_models(models, run, tools, words)
    scored = {model.name: [_score(run, suite, model, tools, words) for suite in suites] for model in named}
    resampling = Resampling(config.bootstrap_samples, config.confidence, run.config.seed)
    result: dict[str, Any] = {
        "versions": versions(),
        "confidence": config.confidence,
        "bootstrap_samples": config.bootstrap_samples,
        "seed": run.config.seed,
        "models": [_told(one, scored[one.name][0]) for one in named],
        "verdicts": told,
        "pair_sets": [
            summarise(suite, {name: found[index] for name, found in scored.items()}, resampling)
            for index, suite in enumerate(suites)
        ],
        "rewardbench": {name: rewardbench_of(suites, found, resampling) for name, found in scored.items()},
    }
    if sensitivity:
        for index, (suite, spoiling) in enumerate(zip(suites, spoilings, strict=True)):
            found = {name: each[index] for name, each in scored.items()}
            result["pair_sets"][index]["sensitivity"] = measure(
                run, suite, spoiling, found, named, tools, words, resampling
            )
    run.write_text(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n", FILE)
    return result | {"file": run.display(FILE)}


def _told(model: Model, found: Found) -> dict[str, Any]:
    """What evaluation.json says of a model; `slug` is in the names of its files."""
    return asdict(model) | {
        "folder": public_place(model.folder),
        "slug": model.slug,
        "scorer": found.whole.scorer,
    }


def _folder(out: str, words: Sequence[str]) -> RunDir:
    base, mark, options = out.partition("?") if "://" in out else (os.path.normpath(out), "", "")
    if base.rpartition("/")[2] in (".", ".."):
        base = os.path.abspath(base)  # these are names that a folder has elsewhere
    parent, name = os.path.split(base.rstrip("/"))
    values = {"name": name, "runs_dir": f"{parent or '.'}{mark}{options}"}
    own = [word for word in words if word.startswith(_OWN_SECTIONS)]
    return RunDir(resolve_config(apply_overrides(values, own)))


def _open_models(names: Sequence[str], run: RunDir, tools: Tools, words: Sequence[str]) -> list[Model]:
    """The models as they were named; two names of one model would share its files of scores."""
    named: dict[str, Model] = {}
    for name in names:
        folder = local_model(name, run)
        opened = tools.check_model(folder)
        found = Model(without_credentials(name), folder, opened.digest)
        other = named.setdefault(found.digest or found.folder, found)
        if other is not found:
            raise ConfigError(
                f"--model {name} and --model {other.name} hold the same model: name different ones, or one "
                "alone"
            )
        if len(names) > 1:  # else the scorer's own check is early enough
            tools.check_scoring(opened, run.display(), words)
    return list(named.values())


def _with_verdicts(suites: list[Suite], place: str) -> tuple[list[Suite], dict[str, Any]]:
    """The sets with the verdicts on their pairs, and what evaluation.json says of the verdicts."""
    verdicts: Verdicts = read_verdicts(place)
    check_apart(verdicts, [one.pairs for one in suites])
    found = [Suite(one.pairs, one.facts, match(verdicts, one.pairs)) for one in suites]
    matched = sum(len(one.judged) for one in found)
    if not matched:
        raise InputError(
            f"none of the {len(verdicts.outcomes)} verdicts of {place} is on a pair of the sets: their `id` "
            "must be the pair's id"
        )
    told = {
        "place": public_place(place),
        "num_verdicts": len(verdicts.outcomes),
        "on_pairs": matched,
        "unanswered": verdicts.unanswered,
        "conflicting": verdicts.conflicting,
    }
    say(
        f"evaluate: {matched} of {len(verdicts.outcomes)} verdicts are on pairs of the sets; "
        f"{verdicts.unanswered} rows have no answer of the judge"
    )
    return found, told


# -- one pair set ----------------------------------------------------------------------------------


def _score(run: RunDir, suite: Suite, model: Model, tools: Tools, words: Sequence[str]) -> Found:
    name, pairs = suite.pairs.name, suite.pairs.pairs
    say(f"evaluate: {len(pairs)} pairs of {name} with {model.name}")
    whole = score_sides(
        run, name, [Sides(one.id, one.chosen, one.rejected) for one in pairs], model, tools, words
    )
    _write_scores(run, suite, model, whole)
    cuts = [
        Sides(pair.id, up_to_turn(pair.chosen, one.turn), up_to_turn(pair.rejected, one.turn))
        for one in suite.judged
        if one.turn is not None
        for pair in [pairs[one.index]]
    ]
    turns = score_sides(run, f"{name}-turns", cuts, model, tools, words) if cuts else None
    return Found(whole, turns)


def _write_scores(run: RunDir, suite: Suite, model: Model, found: Scored) -> None:
    pairs, facts, characters = suite.pairs.pairs, suite.facts, suite.pairs.characters()
    columns: dict[str, Any] = {
        "id": [one.id for one in pairs],
        "source": [one.source for one in pairs],
        "subset": [one.subset for one in pairs],
        "context": facts.contexts,
        "num_turns": facts.num_turns,
        "branch_turn": facts.branch_turns,
        "reason": found.reasons,
    }
    for place, side in enumerate(("chosen", "rejected")):
        score = found.scores[:, place]
        columns[f"{side}_score"] = pa.array(score, mask=np.isnan(score))
        columns[f"{side}_tokens"] = found.num_tokens[:, place]
        columns[f"{side}_characters"] = characters[:, place]
    table = pa.table(columns).replace_schema_metadata({"music_ray.model_name": model.name})
    run.write_table(table, suite.pairs.name, f"scores-{model.slug}.parquet")
