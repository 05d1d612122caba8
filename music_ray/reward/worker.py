"""What Ray Train runs in every worker: build, resume, train, save, export."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from music_ray import errors
from music_ray.config import RunConfig
from music_ray.rundir import RunDir

OUTCOME = ("checkpoints", "outcome.json")
"""What rank 0 tells the driver at the end."""


def train_worker(task: dict[str, Any]) -> None:
    """Entry point of a worker.

    Errors that are meant for the user are raised on all ranks alike. They are not worth a restart, so
    they are handed to the driver as a file; anything else escapes, and Ray Train starts the workers
    again from the last checkpoint.

    Args:
        task: config (RunConfig as JSON types), model (resolved path), tokens (file name),
            fingerprint, pad_token_id, head_seed.
    """
    import torch.distributed as dist

    run = RunDir(RunConfig.model_validate(task["config"]))
    try:
        outcome = {"status": "done", **_train(run, task)}
    except errors.MusicRayError as error:
        outcome = {"status": "failed", "kind": type(error).__name__, "message": str(error)}
    if dist.get_rank() == 0:
        run.write_text(json.dumps(outcome) + "\n", *OUTCOME)


def _train(run: RunDir, task: dict[str, Any]) -> dict[str, Any]:
    clock = _Clock()
    from music_ray.reward.zero3 import build_engine, prepare_process

    train = run.config.train
    prepare_process(train)
    clock.lap("imports")

    import torch.distributed as dist

    from music_ray.reward import checkpoint
    from music_ray.reward.data import PairTokens
    from music_ray.reward.export import export_model
    from music_ray.reward.logbook import Logbook
    from music_ray.reward.loop import Rank, Trainer, run_steps

    rank = Rank(dist.get_rank(), dist.get_world_size(), _device())
    engine = build_engine(
        train, task["model"], head_seed=task["head_seed"], pad_token_id=task["pad_token_id"]
    )
    pairs = PairTokens.open(run, task["tokens"])
    clock.lap("model")
    first = (checkpoint.complete_steps(run) or [0])[-1]
    if first:
        checkpoint.load(run, engine, first)
        clock.lap("resume")
    book = Logbook(run, first) if rank.rank == 0 else None

    def save(step: int) -> None:
        position = checkpoint.Position(step, run.config.seed, train.pairs_per_step, task["fingerprint"])
        checkpoint.save(run, engine, position, train.keep_checkpoints)
        if book is not None:
            book.flush()

    trainer = Trainer(run.config, engine, pairs, rank, task["pad_token_id"])
    run_steps(trainer, first, lambda step, result: book.add(step, result) if book else None, save)
    clock.lap("steps")
    if book is not None:
        book.close()
    check = export_model(run, engine, pairs, task["model"], rank.device)
    clock.lap("export")
    return {
        "resumed_from": first,
        "seconds": clock.laps,
        "export_check": asdict(check),
        "num_parameters": sum(one.ds_numel for one in engine.module.parameters()),
        "num_trained_parameters": sum(one.ds_numel for _, one in checkpoint.trained_parameters(engine)),
    }


def _device() -> Any:
    import ray.train.torch
    import torch

    try:
        return ray.train.torch.get_device()
    except RuntimeError:  # outside of Ray Train, where tests call this function
        return torch.device("cpu")


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends the lap that began with the last call."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
