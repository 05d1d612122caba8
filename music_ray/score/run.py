"""`music-ray score`: conversations through a pool of engine actors, each scored exactly once.

Assembles: what is checked before anything starts, which conversations shards already hold, and what is
written at the end. How rows travel is the jobs package's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from music_ray.config import RunConfig
from music_ray.errors import InputError, StageError
from music_ray.jobs.compaction import compact
from music_ray.jobs.driver import run_job
from music_ray.jobs.inputs import write_inputs
from music_ray.jobs.job import Job
from music_ray.jobs.ledger import open_epoch
from music_ray.jobs.shards import is_among, read_index
from music_ray.jobs.watch import ErrorRate
from music_ray.progress import say
from music_ray.provenance import versions
from music_ray.public import without_credentials
from music_ray.ray_session import check_pool, ensure_ray
from music_ray.rundir import RunDir
from music_ray.score.chat_check import check_chat
from music_ray.score.conversations import conversations
from music_ray.score.files import ScoringInput, open_input
from music_ray.score.longest import OVER_LENGTH, check_longest, no_longer_too_long
from music_ray.score.model import ScoringModel, open_model
from music_ray.score.record import FACTORS, LONGEST, check_folder, read_record, write_record
from music_ray.score.result import INPUTS, RESULT, SHARDS, write_result
from music_ray.score.rows import CONVERSATION_SCHEMA, shard_schema
from music_ray.score.settings import scoring_config

_ROWS_PER_FILE = 5_000
_PLACES_CPU, _PLACES_GPU = 64, 512
"""Conversations that a scorer takes at once: it keeps no keys and values that would bound them."""


def run_score(model: str, data: str, out: str, overrides: Sequence[str] = ()) -> RunDir:
    """Scores every conversation of a data set that the folder `out` has no score of yet.

    Args:
        model: a reward model's folder: a path or URI.
        data: a Parquet or JSON-lines file, or a folder of them: a path or URI.
        out: a new folder, or one that the same model and data were scored into: a path or URI.
        overrides: `key.path=value` words of the sections score, engine, generate and ray.

    Raises:
        ConfigError, InputError, EnvironmentLacksError: a user's mistake, found before anything starts.
        RunFolderError: `out` holds something else, longer conversations than may be scored now, or another
            process is scoring into it.
        StageError: nothing could be scored, or a bound ended it; what is scored stays.
    """
    found = open_model(model)
    source = open_input(data)
    config = scoring_config(found, out, overrides)
    run = RunDir(config)
    if read_record(run).get("status") != "done":  # transformers takes seconds to import
        check_chat(found, config)
    origin = made_from(found, source, config)
    check_folder(run, origin)
    with run.lock():
        names = {"model": without_credentials(model), "input": without_credentials(data)}
        record = {**read_record(run), "made_from": origin, **names}
        _check_bound(run, record)
        if record.get("status") == "done" and not _to_retry(config, record):
            _check_any_scored(run, record["counts"])
            say(f"score: finished in {run.display(RESULT)}")
            return run
        record |= {"status": "running", "starts": record.get("starts", 0) + 1, "versions": versions()}
        record[LONGEST] = config.engine.max_model_len
        write_record(run, record)
        facts = {f"music_ray.{name}": value for name, value in origin.items()}
        facts |= {"music_ray.model_name": names["model"], "music_ray.architecture": found.architecture}
        _score_pending(run, source, record["starts"], facts)
        counts = write_result(run, facts)
        run.clear(INPUTS)
        write_record(run, {**record, "status": "done", "counts": counts})
    _tell(run, counts)
    _check_any_scored(run, counts)
    return run


def made_from(model: ScoringModel, source: ScoringInput, config: RunConfig) -> dict[str, str]:
    """What all scores of a folder have in common: a command that differs in it needs another folder."""
    engine = config.engine
    found = {
        "model": model.digest,
        "input": source.digest(),
        "engine": config.score.engine,
        "dtype": engine.dtype,
    }
    if config.score.engine == "vllm" and model.long_beyond is not None:
        # vLLM decides by the bound, once for all conversations: the bound is in every score.
        found[FACTORS] = "long" if engine.max_model_len > model.long_beyond else "short"
    return found


def _check_bound(run: RunDir, record: dict[str, Any]) -> None:
    """No score of a conversation that is too long for this start."""
    former = record.get(LONGEST)
    if former is None or former > run.config.engine.max_model_len:
        check_longest(run, read_index(run, (SHARDS,)), former)


def _to_retry(config: RunConfig, record: dict[str, Any]) -> bool:
    counts = record.get("counts", {})
    another_bound = record.get(LONGEST) != config.engine.max_model_len
    if another_bound and counts.get("error_reasons", {}).get(OVER_LENGTH):
        return True
    return config.generate.retry_errors and bool(counts.get("errors"))


def _score_pending(run: RunDir, source: ScoringInput, epoch: int, facts: dict[str, str]) -> None:
    # Before the ledger is read: actors of a driver that was killed must write nothing after that.
    open_epoch(run, (SHARDS,), epoch)
    total = _write_inputs(run, source)
    index = read_index(run, (SHARDS,))
    done = index.ids_done(errors_too=not run.config.generate.retry_errors)
    again = no_longer_too_long(run, index)
    done = done[~is_among(done, again)]
    if len(again):
        say(
            f"score: {len(again)} conversations were too long and now fit into engine.max_model_len "
            f"({run.config.engine.max_model_len}): they are scored"
        )
    if len(done):
        say(f"score: {len(done)} of {total} conversations are scored already, {total - len(done)} to go")
    if len(done) < total:
        _run_job(run, epoch, facts, done, total)
    compact(run, (SHARDS,))


def _write_inputs(run: RunDir, source: ScoringInput) -> int:
    """Writes the input as the job reads it; how many conversations there are."""
    found = conversations(source.rows())
    total = write_inputs(run, (INPUTS,), found, CONVERSATION_SCHEMA, _ROWS_PER_FILE)
    if not total:
        raise InputError(f"{source.files[0].file.name} has no rows: name a file that holds conversations")
    return total


def _run_job(run: RunDir, epoch: int, facts: dict[str, str], done: np.ndarray, total: int) -> None:
    config = run.config
    engine, generate = config.engine, config.generate
    ensure_ray(config)
    check_pool(engine, "engine", "read conversations")
    say(
        f"score: starting {engine.min_engines} engine(s) ({config.score.engine}, {engine.dtype}, up to "
        f"{engine.max_model_len} tokens) for {total - len(done)} conversations"
    )
    job = Job(
        name="score",
        unit="conversations",
        worker="music_ray.score.worker:ScoreWorker",
        folder=(SHARDS,),
        schema=shard_schema(facts),
        run_epoch=epoch,
        places=_PLACES_GPU if engine.gpus_per_engine else _PLACES_CPU,
    )
    watch = ErrorRate(generate.max_error_rate, generate.error_rate_after, run.display(SHARDS))
    run_job(run, job, run.parquet_files(INPUTS), done, total=total, watches=[watch])


def _tell(run: RunDir, counts: dict[str, Any]) -> None:
    reasons = _reasons(counts)
    say(
        f"score: {counts['scored']} of {counts['conversations']} conversations scored, {counts['tokens']} "
        f"tokens{f'; not scored: {reasons}' if reasons else ''}; {run.display(RESULT)}"
    )


def _check_any_scored(run: RunDir, counts: dict[str, Any]) -> None:
    if not counts["scored"]:
        reasons = _reasons(counts)
        raise StageError(
            f"none of the {counts['conversations']} conversations could be scored ({reasons}): the `detail` "
            f"column in {run.display(RESULT)} says more"
        )


def _reasons(counts: dict[str, Any]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts["error_reasons"].items())
