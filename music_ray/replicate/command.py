"""`music-ray replicate`: from the world's files to the table of the claim; interrupted, it goes on.

Everything lies below one local folder: world/, rollouts/, arms-data/, arms/, scores/, outcomes/,
results.json and table.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from music_ray.config.load import parse_yaml
from music_ray.errors import ConfigError
from music_ray.evaluate.sides import Tools
from music_ray.evaluate.stats import Interval
from music_ray.miniature.suites import build
from music_ray.progress import say
from music_ray.provenance import versions
from music_ray.replicate.arms import tokens_a_pair, write_arms
from music_ray.replicate.claim import Right, accuracies, as_json, by_part, differences, findings
from music_ray.replicate.clock import Clock
from music_ray.replicate.natural_suites import (
    RATES,
    TRAINING_RATES,
    write_dev_early,
    write_natural_early,
    write_natural_final,
    write_natural_preferences,
    write_training_rates,
)
from music_ray.replicate.outcomes import kept, outcome_file, picks_file, read_outcome, write_outcome
from music_ray.replicate.picks import compare_picks, picks_finding, win_rates
from music_ray.replicate.record import FILE, made_from, open_folder, write_text
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import DEV_EARLY, DEV_NATURAL, DEV_SUITES, SCALES
from music_ray.replicate.scoring import Suites, score_suites
from music_ray.replicate.shortcuts import shortcuts
from music_ray.replicate.show import table
from music_ray.replicate.training import train_arms
from music_ray.replicate.world import make, suite_file, write_world
from music_ray.run_lock import lock_file

LOCK = ".lock"
OWNED = ("name=", "runs_dir=", "data.", "seeds.num_seeds=", "generate.turns=", "mix.", "best_of_n.")
"""Overrides that would be lost, because every run of a replication has its own."""
SCORING = (
    "score.engine=packed", "evaluate.bootstrap_samples=100", "engine.min_engines=2", "engine.max_engines=2",
    "engine.cpus_per_engine=0.5", "generate.conversations_per_task=512", "generate.flush_rows=2048",
)  # fmt: skip
"""Two actors of a thread each, and large tasks: a conversation takes 2 ms, so what a task and a shard take by
themselves counts."""


def replicate(
    config: str, scale_name: str, out: str, overrides: Sequence[str], tools: Tools
) -> dict[str, Any]:
    """Brings a replication to its end, and prints the table of the claim.

    Args:
        config: the configuration file that all runs share, configs/miniature.yaml.
        scale_name: smoke, short or full.
        out: local folder.
        overrides: KEY=VALUE words for every run.
        tools: what evaluation needs of other stages.

    Returns:
        what results.json holds.

    Raises:
        MusicRayError: a user's mistake, or as the stages.
    """
    recipe = _recipe(config, scale_name, out, overrides)
    with lock_file(recipe.out / LOCK, out):
        result = _replicate(recipe, tools)
    say(f"replicate: {recipe.out / 'results.json'}")
    return result


def _replicate(recipe: Recipe, tools: Tools) -> dict[str, Any]:
    clock = Clock(recipe.out / "seconds.json")
    suites = Suites.of(_suites(recipe, clock))
    if recipe.scale.preference_samples:
        write_natural_preferences(recipe)
        clock.lap("natural errors of D")
    files = write_arms(recipe)
    write_training_rates(recipe)
    clock.lap("rollouts and pairs of the arms")
    right: dict[str, dict[str, list[np.ndarray]]] = {
        arm: {name: [] for name in suites.files} for arm in files
    }
    picks: list[pa.Table] = []
    result: dict[str, Any] = {}
    for seed in range(recipe.scale.seeds):
        _bring_to_outcomes(recipe, suites, files, seed, tools, clock)
        for arm in files:
            for name, values in read_outcome(outcome_file(recipe.out, arm, seed), suites.facts).items():
                right[arm][name].append(values)
        if recipe.scale.best_of_n_prompts:
            picks.append(pq.read_table(picks_file(recipe.out, seed)))
        # After every training seed: a replication of hours tells what it has.
        result = _write_results(recipe, suites, files, right, picks, clock)
    sys.stdout.write(table(result))
    return result


def _bring_to_outcomes(
    recipe: Recipe,
    suites: Suites,
    files: dict[str, Path],
    seed: int,
    tools: Tools,
    clock: Clock,
) -> None:
    """Trains and scores the arms of one training seed whose outcomes are not there yet."""
    unknown = {arm for arm in files if not outcome_file(recipe.out, arm, seed).exists()}
    compare = bool(recipe.scale.best_of_n_prompts) and not picks_file(recipe.out, seed).exists()
    wanted = unknown | ({"A0", "A1"} if compare else set())
    if not wanted:
        return
    models = train_arms(recipe, {arm: file for arm, file in files.items() if arm in wanted}, seed)
    clock.lap("training")
    for arm, model in models.items():
        if arm in unknown:
            found = score_suites(model, suites, recipe.out / "scores" / f"{arm}-{seed}", tools, SCORING)
            write_outcome(outcome_file(recipe.out, arm, seed), suites.facts, found)
            clock.lap("scoring")
    if compare:
        kept(picks_file(recipe.out, seed), lambda: compare_picks(recipe, models["A1"], models["A0"], seed))
        clock.lap("best-of-N")


def _write_results(
    recipe: Recipe,
    suites: Suites,
    files: dict[str, Path],
    right: dict[str, dict[str, list[np.ndarray]]],
    picks: list[pa.Table],
    clock: Clock,
) -> dict[str, Any]:
    stacked = {arm: {name: np.stack(rows) for name, rows in found.items()} for arm, found in right.items()}
    result = _result(recipe, suites, files, stacked, win_rates(picks) if picks else None, clock)
    write_text(recipe.out / "results.json", json.dumps(result, indent=2) + "\n")
    write_text(recipe.out / "table.md", table(result))
    return result


def _recipe(config: str, scale_name: str, out: str, overrides: Sequence[str]) -> Recipe:
    if scale_name not in SCALES:
        raise ConfigError(f"no scale {scale_name!r}: one of {', '.join(SCALES)}")
    if "://" in out:
        raise ConfigError(f"--out {out}: a replication needs a local folder")
    path = Path(config)
    if not path.is_file():
        raise ConfigError(f"no configuration at {config}: name configs/miniature.yaml")
    owned = next((word for word in overrides if word.startswith(OWNED)), None)
    if owned is not None:
        raise ConfigError(f"{owned}: a replication sets {owned.partition('=')[0]} itself; leave it out")
    values = parse_yaml(path.read_text(encoding="utf-8"), config)
    recipe = Recipe(Path(out), values, SCALES[scale_name], tuple(overrides))
    by_user = replace(recipe, scale=replace(recipe.scale, overrides=()))  # the scale speaks for itself
    open_folder(recipe.out, made_from(by_user.config("", "replication", []), recipe.scale))
    return recipe


def _suites(recipe: Recipe, clock: Clock) -> dict[str, Path]:
    """The suites' files; S2 from what the language model says by itself."""
    write_world(recipe.world, recipe.scale)
    found = {name: suite_file(recipe.world, name) for name in recipe.scale.suites}
    for name in DEV_SUITES:
        found[name] = make(suite_file(recipe.world, name), partial(_dev_rows, name, recipe.scale.suite_pairs))
    clock.lap("world")
    if "S2" in found:
        if not found["S2"].exists():
            write_natural_early(recipe, found["S2"])
        clock.lap("samples of S2")
    if recipe.scale.dev_samples:
        for name, write in ((DEV_NATURAL, write_natural_final), (DEV_EARLY, write_dev_early)):
            found[name] = suite_file(recipe.world, name)
            if not found[name].exists():
                write(recipe, found[name], name)
        clock.lap("samples of the development split")
    return found


def _read_rates(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def _dev_rows(name: str, num_pairs: int) -> list[dict[str, Any]]:
    return [pair.row() | {"source": name} for pair in build(DEV_SUITES[name], min(1000, num_pairs), dev=True)]


def _result(
    recipe: Recipe,
    suites: Suites,
    files: dict[str, Path],
    right: Right,
    picks: dict[str, dict[str, Interval]] | None,
    clock: Clock,
) -> dict[str, Any]:
    clusters = {name: one.clusters for name, one in suites.facts.items()}
    tokens = {arm: tokens_a_pair(file) for arm, file in files.items()}
    found = findings(right, clusters) + ([picks_finding(picks)] if picks else [])
    return {
        "versions": versions(),
        "made_from": json.loads((recipe.out / FILE).read_text(encoding="utf-8")),
        "training_seeds": len(next(iter(right["A0"].values()))),
        "pairs_of_its_own": {arm: len(pq.read_table(file, columns=["id"])) for arm, file in files.items()},
        "seconds": clock.seconds,
        "num_pairs": {name: len(one.ids) for name, one in suites.facts.items()},
        "natural_errors": _read_rates(recipe.world / RATES),
        "rollout_errors": _read_rates(recipe.world / TRAINING_RATES),
        "tokens_a_pair": {arm: round(value, 2) for arm, value in tokens.items()},
        "accuracy": {
            suite: {arm: as_json(one) for arm, one in by_arm.items()}
            for suite, by_arm in accuracies(right, clusters).items()
        },
        "by_mistake": {name: by_part(right, name, one.mistakes) for name, one in suites.facts.items()},
        "by_error_turn": {name: by_part(right, name, one.error_turns) for name, one in suites.facts.items()},
        "best_of_n": {
            selection: {name: as_json(one) for name, one in by_n.items()}
            for selection, by_n in (picks or {}).items()
        },
        "shortcuts": {
            name: shortcuts(suites.files[name], one.clusters) for name, one in suites.facts.items()
        },
        "differences": {
            suite: {f"{one} - {other}": as_json(value) for (one, other), value in by_arms.items()}
            for suite, by_arms in differences(right, clusters).items()
        },
        "findings": [
            asdict(one) | {"estimates": {name: as_json(value) for name, value in one.estimates.items()}}
            for one in found
        ],
    }
