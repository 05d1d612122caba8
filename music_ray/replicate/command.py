"""`music-ray replicate`: from the world's files to the table of the claim; interrupted, it goes on.

Everything lies below one local folder: world/, rollouts/, arms-data/, arms/, scores/, outcomes/,
results.json, table.md and breakdown.md.
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
from music_ray.miniature.suites import build
from music_ray.progress import say
from music_ray.provenance import versions
from music_ray.replicate.arms import tokens_a_pair, write_arms
from music_ray.replicate.breakdown import breakdown
from music_ray.replicate.claim import (
    Right,
    accuracies,
    as_json,
    by_part,
    differences,
    differences_by_seed,
    findings,
)
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
from music_ray.replicate.new_pairs import new_first_messages
from music_ray.replicate.outcomes import Outcomes
from music_ray.replicate.picks import WinRates, intervals, picks_finding, win_rates
from music_ray.replicate.record import FILE, made_from, open_folder, write_text
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scale import DEV_EARLY, DEV_NATURAL, DEV_SUITES, SCALES, Scale
from music_ray.replicate.scoring import Suites
from music_ray.replicate.shortcuts import shortcuts
from music_ray.replicate.show import table
from music_ray.replicate.training import trained_on
from music_ray.replicate.training_seed import bring_to_outcomes
from music_ray.replicate.world import make, suite_file, write_world
from music_ray.run_lock import lock_file

LOCK = ".lock"
OWNED = ("name=", "runs_dir=", "data.", "seeds.num_seeds=", "generate.turns=", "mix.", "best_of_n.")
"""Overrides that would be lost, because every run of a replication has its own."""


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
    sources = {arm: list(trained_on(recipe, arm, file).values()) for arm, file in files.items()}
    outcomes = Outcomes.of(recipe.out, suites, sources)
    outcomes.check()
    right: dict[str, dict[str, list[np.ndarray]]] = {
        arm: {name: [] for name in suites.files} for arm in files
    }
    picks: list[pa.Table] = []
    result: dict[str, Any] = {}
    for seed in range(recipe.scale.seeds):
        bring_to_outcomes(recipe, outcomes, files, seed, tools, clock)
        for arm in files:
            for name, values in outcomes.read(arm, seed).items():
                right[arm][name].append(values)
        if recipe.scale.best_of_n_prompts:
            picks.append(outcomes.read_picks(seed))
        if seed + 1 < recipe.scale.seeds and outcomes.complete(files, seed + 1):
            continue
        # After every training seed that was not known: a replication of hours tells what it has.
        stacked = {
            arm: {name: np.stack(rows) for name, rows in found.items()} for arm, found in right.items()
        }
        result = _result(recipe, suites, files, stacked, win_rates(picks) if picks else None, clock)
        write_text(recipe.out / "results.json", json.dumps(result, indent=2) + "\n")
        write_text(recipe.out / "table.md", table(result))
        write_text(recipe.out / "breakdown.md", breakdown(result))
        if seed + 1 < recipe.scale.seeds:
            say(f"replicate: {recipe.out / 'table.md'}, {seed + 1} of {recipe.scale.seeds} training seeds")
        clock.lap("results")
    sys.stdout.write(table(result))
    sys.stdout.write(f"\nBy kind and turn of the error: {recipe.out / 'breakdown.md'}\n")
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
    if "best_of_n" in values:
        raise ConfigError(f"{config}: a replication sets best_of_n itself; leave the section out")
    recipe = Recipe(Path(out), values, SCALES[scale_name], tuple(overrides))
    # The scale speaks for itself, and what is said over it is recorded beside it.
    own = tuple(word for word in overrides if word.partition("=")[0] not in _keys(recipe.scale))
    by_user = replace(recipe, scale=replace(recipe.scale, overrides=()), overrides=own)
    record = made_from(by_user.config("", "replication", []), recipe.scale)
    if overridden := _over_the_scale(recipe):
        record["overrides of the scale"] = overridden
    open_folder(recipe.out, record)
    return recipe


def _over_the_scale(recipe: Recipe) -> dict[str, Any]:
    """What the user's words change of what the scale sets, by key."""
    alone = replace(recipe, overrides=())
    own, scales = (one.config("", "replication", []).model_dump(mode="json") for one in (recipe, alone))
    return {key: _at(own, key) for key in _keys(recipe.scale) if _at(own, key) != _at(scales, key)}


def _keys(scale: Scale) -> list[str]:
    return [word.partition("=")[0] for word in scale.overrides]


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


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
    picks: WinRates | None,
    clock: Clock,
) -> dict[str, Any]:
    clusters = {name: one.clusters for name, one in suites.facts.items()}
    sources = {arm: list(trained_on(recipe, arm, file).values()) for arm, file in files.items()}
    found = findings(right, clusters) + ([picks_finding(picks)] if picks else [])
    return {
        "versions": versions(),
        "made_from": json.loads((recipe.out / FILE).read_text(encoding="utf-8")),
        "training_seeds": len(next(iter(right["A0"].values()))),
        "pairs_of_its_own": {arm: len(pq.read_table(file, columns=["id"])) for arm, file in files.items()},
        "seconds": dict(clock.seconds),
        "num_pairs": {name: len(one.ids) for name, one in suites.facts.items()},
        "natural_errors": _read_rates(recipe.world / RATES),
        "rollout_errors": _read_rates(recipe.world / TRAINING_RATES),
        "tokens_a_pair": tokens_a_pair({arm: [file] for arm, file in files.items()}),
        "tokens_of_all": tokens_a_pair(sources),
        "new_first_messages": new_first_messages(recipe, right, clusters["S2"]) if "S2" in clusters else None,
        "accuracy": {
            suite: {arm: as_json(one) for arm, one in by_arm.items()}
            for suite, by_arm in accuracies(right, clusters).items()
        },
        "by_mistake": {name: by_part(right, name, one.mistakes) for name, one in suites.facts.items()},
        "by_error_turn": {name: by_part(right, name, one.error_turns) for name, one in suites.facts.items()},
        "best_of_n": {
            selection: {name: as_json(one) for name, one in by_n.items()}
            for selection, by_n in intervals(picks or {}).items()
        },
        "shortcuts": {
            name: shortcuts(suites.files[name], one.clusters) for name, one in suites.facts.items()
        },
        "differences": {
            suite: {f"{one} − {other}": as_json(value) for (one, other), value in by_arms.items()}
            for suite, by_arms in differences(right, clusters).items()
        },
        "differences_by_seed": {
            suite: {f"{one} − {other}": each for (one, other), each in by_arms.items()}
            for suite, by_arms in differences_by_seed(right).items()
        },
        "findings": [
            asdict(one) | {"estimates": {name: as_json(value) for name, value in one.estimates.items()}}
            for one in found
        ],
    }
