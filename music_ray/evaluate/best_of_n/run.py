"""`music-ray best-of-n`: prompts become conversations, conversations verdicts, verdicts win rates.

Assembles two jobs and the numbers. Everything lies below one folder; the same command goes on in it, and asks
neither engine nor judge anything twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from music_ray import preflight
from music_ray.config import RunConfig
from music_ray.errors import ConfigError
from music_ray.evaluate.best_of_n.checkers import load_checker
from music_ray.evaluate.best_of_n.conversations import converse, picked_rows
from music_ray.evaluate.best_of_n.judging import judge_picks, judges_of
from music_ray.evaluate.best_of_n.prompts import Prompts, read_prompts
from music_ray.evaluate.best_of_n.record import check_folder, identity, identity_of_models, write_record
from music_ray.evaluate.best_of_n.settings import (
    check_device,
    check_limits,
    placed,
    scorer_words,
)
from music_ray.evaluate.best_of_n.show import print_best_of_n
from music_ray.evaluate.best_of_n.summary import outcome_table, outcomes_by_judge, summarise
from music_ray.evaluate.best_of_n.tools import Tools
from music_ray.evaluate.model_names import local_model
from music_ray.evaluate.sides import Model
from music_ray.judge.own_words import own_words
from music_ray.progress import say
from music_ray.provenance import versions
from music_ray.public import without_credentials
from music_ray.revisions import with_commits
from music_ray.rundir import RunDir, digest

RESULTS = "results.json"
OUTCOMES = "outcomes.parquet"
"""Beside the results: what became of each prompt in each comparison."""


def best_of_n_command(config: RunConfig, models: Sequence[str], out: str | None, tools: Tools) -> None:
    """run_best_of_n, and its tables in the terminal."""
    result = run_best_of_n(config, models, out, tools)
    print_best_of_n(result)
    say(f"best-of-n: {result['file']}")


def run_best_of_n(config: RunConfig, models: Sequence[str], out: str | None, tools: Tools) -> dict[str, Any]:
    """Brings conversations, verdicts and results to their end.

    Args:
        config: its sections engine, assistant, user, best_of_n, evaluate (intervals), generate and ray count.
        models: reward models: folders, ids of the hub, or untrained:RUN.
        out: a new folder, or one to go on with; evaluations/best-of-n-NAME without.

    Returns:
        what results.json holds, and its place as `file`.

    Raises:
        ConfigError, InputError, EnvironmentLacksError: a user's mistake, found before anything starts.
        RunFolderError: the folder holds conversations of something else, or another process works in it.
        StageError: too many rows failed, or all did; what is finished stays.
    """
    if not models:
        raise ConfigError("best-of-n needs a reward model: name one or more with --model")
    check_device(config)
    check_limits(config)
    prompts = read_prompts(config.best_of_n)
    load_checker(config.best_of_n.checker)  # a mistake in its name costs nothing now
    config = placed(config, out or f"evaluations/best-of-n-{config.name}")
    run = RunDir(config)
    check_folder(run, identity(config))  # before an untrained model is written into it
    named, scorers = _open_models(models, run, tools)
    _check_engines(config)
    warnings = _warnings(config)
    for line in (*_about_prompts(prompts), *(f"warning: {one}" for one in warnings)):
        say(f"best-of-n: {line}")
    with run.lock():
        made_from = identity(config) | identity_of_models(scorers)
        record = check_folder(run, made_from)
        starts = record.get("starts", 0) + 1
        write_record(run, {"made_from": made_from, "starts": starts, "versions": versions()})
        run = RunDir(with_commits(run))
        counts = converse(run, starts, prompts, scorers, tools)
        judged = judge_picks(run, prompts, list(scorers))
        rows = list(picked_rows(run, prompts))
        found = outcomes_by_judge(run, rows, judged, list(scorers))
        run.write_table(outcome_table(rows, found), OUTCOMES)
        result = {
            "versions": versions(),
            "models": [{"name": one.name, "digest": one.digest} for one in named],
            "prompts": {
                "digest": digest(prompts.rows),
                "set_aside": dict(sorted(prompts.set_aside.items())),
                "without_id": prompts.without_id,
            },
            "rows": counts,
            **summarise(run, rows, judged, found),
            "warnings": warnings,
        }
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
        run.write_text(text + "\n", RESULTS)
    return result | {"file": run.display(RESULTS)}


def _open_models(
    models: Sequence[str], run: RunDir, tools: Tools
) -> tuple[list[Model], dict[str, RunConfig]]:
    """The models as they were named, and by digest the configuration of the scorer of each."""
    named: list[Model] = []
    scorers: dict[str, RunConfig] = {}
    words = scorer_words(run.config)
    for name in models:
        folder = local_model(name, run)
        found = tools.check_model(folder)
        if found.digest in scorers:
            other = next(one.name for one in named if one.digest == found.digest)
            raise ConfigError(
                f"--model {name} and --model {other} hold the same model: name different ones, or one alone "
                "to compare it with random picks"
            )
        named.append(Model(without_credentials(name), folder, found.digest))
        scorers[found.digest] = tools.scoring_config(found, run.display(), words)
    return named, scorers


def _check_engines(config: RunConfig) -> None:
    """All engines are looked at before the first one is paid for."""
    preflight.check(config, ["generate"])
    for judge in judges_of(config).values():
        preflight.check(judge, ["generate"])


def _about_prompts(prompts: Prompts) -> list[str]:
    lines = [f"{len(prompts.rows)} prompts"]
    if prompts.without_id:
        lines.append(f"{prompts.without_id} prompts have no id and are named by their content")
    if prompts.set_aside:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(prompts.set_aside.items()))
        lines.append(f"rows set aside: {reasons}")
    return lines


def _warnings(config: RunConfig) -> list[str]:
    """What a reader of the results must know about who judges whom."""
    section = config.best_of_n
    lines = []
    roles = {"user simulator": config.user.engine or config.engine, "assistant": config.engine}
    for name, judge in judges_of(config).items():
        lines += own_words(f"best_of_n.{name}", judge.engine, roles)
    if section.checker == "gsm8k" and section.turns > 1:
        lines.append(
            f"best_of_n.checker=gsm8k looks at the final reply, which after {section.turns} turns may answer "
            "something else than the prompt: best_of_n.turns=1 is what it is made for"
        )
    if not judges_of(config) and section.checker is None:
        lines.append(
            "neither best_of_n.judge.engine nor best_of_n.checker is set: conversations are made, and nobody "
            "compares them"
        )
    return lines
