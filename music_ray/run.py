"""The whole road in order: seeds → rollouts → pairs → mix → model → evals → report.

Assembles; computes nothing. A stage that is finished with the present configuration and input is
skipped, one that was interrupted goes on, and what a changed configuration makes out of date is made
again, the paid-for model and checkpoints being set aside rather than overwritten.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from music_ray import models, preflight
from music_ray.config import RunConfig
from music_ray.config.load import load_config, parse_yaml, refuse_credentials, resolve_config
from music_ray.errors import InputError
from music_ray.progress import duration, say
from music_ray.rundir import STAGES, RunDir, digest, open_filesystem
from music_ray.storage import is_of_store, open_input, parent_and_name

if TYPE_CHECKING:
    from music_ray.evaluate.best_of_n.tools import Tools as BestOfNTools
    from music_ray.evaluate.sides import Tools


def run_stages(
    config: RunConfig, stages: Sequence[str], *, need_upstream: bool = False, again: bool = False
) -> RunDir:
    """Brings the given stages to their end, in order.

    Args:
        need_upstream: refuse to start a stage whose earlier stages are not finished (for one stage alone).
        again: also bring those to their end once more that are finished.

    Raises:
        MusicRayError: a user's mistake or a stage that could not reach its end.
    """
    run = RunDir(config)
    only_reads = list(stages) == ["report"]  # a report of what another version made is still a report
    if not only_reads:
        run.check_identity()
    if need_upstream:
        _check_upstream(run, stages[0])
    with_work = [stage for stage in stages if not _is_finished(run, stage, stages)]
    preflight.check(config, with_work)
    if "pairs" in with_work:
        from music_ray.generate.gates.preflight import check_gates

        check_gates(config.pairs.gates)
    with run.lock():
        if not only_reads:
            run.open()
        _prepare_models(run, with_work)
        for stage in stages:
            _bring_to_end(run, stage, again=again)
    return run


def config_of_run(folder: str) -> RunConfig:
    """The configuration that a run folder was made with, wherever the folder lies now.

    Raises:
        InputError: it is no run folder.
        ConfigError: its URI holds credentials.
    """
    refuse_credentials(folder, "the run folder's URI")
    location = folder.rstrip("/")
    if location.endswith((".yaml", ".yml")):
        return load_config(location)
    if "://" not in location and not re.search(r"[^/.]", location.rpartition("/")[2]):
        location = os.path.abspath(folder)  # '.' and '..' are names that a folder has elsewhere
    parent, name = parent_and_name(location)
    fs, path = open_filesystem(location)
    try:
        with open_input(fs, f"{path.rstrip('/')}/config.yaml") as handle:
            text = handle.read().decode("utf-8", "replace")
    except OSError as error:
        if is_of_store(error):
            raise
        raise InputError(
            f"{folder} is no run folder: it has no config.yaml; name one such as runs/demo"
        ) from None
    values = parse_yaml(text, f"{folder}/config.yaml")
    return resolve_config(values | {"name": name, "runs_dir": parent})


def evaluation_tools() -> Tools:
    """What evaluation needs of other stages."""
    from music_ray.evaluate.sides import Tools
    from music_ray.generate.hub import hub_rows
    from music_ray.score.chat_check import checked_config
    from music_ray.score.model import open_model
    from music_ray.score.run import run_score

    return Tools(open_model, checked_config, score=run_score, hub_rows=hub_rows)


def run_best_of_n(config: RunConfig, model_names: Sequence[str], out: str | None) -> None:
    """Best-of-N, with what other stages lend it; see music_ray.evaluate.best_of_n.run."""
    from music_ray.evaluate.best_of_n.run import best_of_n_command

    best_of_n_command(config, model_names, out, best_of_n_tools())


def best_of_n_tools() -> BestOfNTools:
    """What best-of-N needs of other stages."""
    from music_ray.evaluate.best_of_n.tools import Tools
    from music_ray.generate.speakers import Speakers
    from music_ray.score.chat_check import checked_config
    from music_ray.score.model import open_model
    from music_ray.score.worker import ScoreWorker

    return Tools(open_model, checked_config, scorer=ScoreWorker, speakers=Speakers)


def _is_finished(run: RunDir, stage: str, stages: Sequence[str]) -> bool:
    """Finished, and so are all the stages before it that this command would run."""
    return all(run.is_finished(one) for one in stages[: list(stages).index(stage) + 1])


def _bring_to_end(run: RunDir, stage: str, *, again: bool) -> None:
    if run.is_finished(stage) and not again:
        say(f"{stage}: finished")
        return
    say(f"{stage}: starting")
    if stage == "train":
        _set_stale_model_aside(run)
    before = run.start_stage(stage)
    started = time.monotonic()
    try:
        facts = _function(stage, before.get("starts", 0) + 1)(run)
    except BaseException:
        with contextlib.suppress(OSError):  # what ended the stage counts, also where the store is gone
            run.add_seconds(stage, time.monotonic() - started)
        raise
    seconds = time.monotonic() - started
    run.finish_stage(stage, facts.pop("output"), seconds, **facts)
    say(f"{stage}: done in {duration(seconds)}{_summary(facts.get('counts', {}))}")
    _look_at(run, stage, facts.get("counts", {}))


def _look_at(run: RunDir, stage: str, counts: dict[str, Any]) -> None:
    """What a user wants to know before the next stage begins: what the run will take, what the pairs show."""
    if stage == "seeds":
        from music_ray.planning.make import write_plan
        from music_ray.planning.show import one_line

        say(f"plan: {one_line(write_plan(run))}")
    if stage == "pairs" and counts.get("accepted"):
        from music_ray.generate.audit.run import run_audit

        say(f"audit: {run_audit(run).verdict}")


def _function(stage: str, start: int) -> Callable[[RunDir], dict[str, Any]]:
    """The stage's function; its heavy imports happen here and not before."""
    if stage == "seeds":
        from music_ray.generate.seeds import run_seeds

        return run_seeds
    if stage == "generate":
        from music_ray.generate.pipeline import run_generate

        return lambda run: run_generate(run, run_epoch=start)
    if stage == "pairs":
        from music_ray.generate.pairs import run_pairs

        return run_pairs
    if stage == "mix":
        from music_ray.generate.mix import run_mix

        return run_mix
    if stage == "train":
        from music_ray.reward.train import run_train

        return run_train
    if stage == "evaluate":
        from music_ray.evaluate.pairwise import run_evaluate

        return run_evaluate
    from music_ray.report.build import run_report

    return run_report


def _summary(counts: dict[str, Any]) -> str:
    """Counts as one readable line: totals, then tables of reasons that hold anything."""
    parts = []
    for name, value in counts.items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            if value and not any(isinstance(one, dict) for one in value.values()):
                inner = ", ".join(f"{reason} {count}" for reason, count in sorted(value.items()))
                parts.append(f"{label}: {inner}")
        elif isinstance(value, int):
            parts.append(f"{label} {value}")
    return f" ({'; '.join(parts)})" if parts else ""


def _check_upstream(run: RunDir, stage: str) -> None:
    for earlier in STAGES[: STAGES.index(stage)]:
        if not run.is_finished(earlier):
            raise InputError(
                f"{stage} needs {earlier}, which is not finished in {run.display()}: run "
                f"`music-ray {earlier}` first, or `music-ray run` for all"
            )


def _prepare_models(run: RunDir, stages: Sequence[str]) -> None:
    """Converts the demo model where one is named, before any stage waits for it."""
    wanted = set()
    if "generate" in stages and run.config.engine.kind == "vllm":
        wanted.add(run.config.engine.model)
    if "train" in stages:
        wanted.add(run.config.train.base_model)
    started = time.monotonic()
    if any(not models.is_ready(name) for name in wanted):
        for name in sorted(wanted):
            models.resolve_model(name)
        run.finish_stage("setup", "", time.monotonic() - started)


def _set_stale_model_aside(run: RunDir) -> None:
    """A model of another configuration or other data is kept under its old fingerprint."""
    record = run.manifest()["stages"].get("train", {})
    made_from = record.get("running_from") or record.get("made_from")
    if made_from and not run.is_made_from_this("train", made_from):
        for folder in ("model", "checkpoints", "logs"):
            kept = run.set_aside(folder, digest(made_from))
            if kept:
                say(f"train: configuration or data changed, the former {folder}/ is kept as {kept}")
