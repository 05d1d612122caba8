"""What Ray Train runs in every worker: build, resume, train, save, export."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from music_ray import errors
from music_ray.config import RunConfig
from music_ray.models import resolve_model
from music_ray.reward.interrupt import OUTCOME
from music_ray.rundir import RunDir
from music_ray.storage import patiently


def train_worker(task: dict[str, Any]) -> None:
    """Entry point of a worker.

    Errors that are meant for the user are raised on all ranks alike. They are not worth a restart, so
    they are handed to the driver as a file; anything else escapes, and Ray Train starts the workers
    again from the last checkpoint.

    Args:
        task: config (RunConfig as JSON types), model (resolved path, or a URI), tokens (file name),
            fingerprint, pad_token_id, head_seed.
    """
    import torch.distributed as dist

    run = RunDir(RunConfig.model_validate(task["config"]))
    try:
        outcome = {"status": "done", **_train(run, task)}
    except errors.MusicRayError as error:
        outcome = {"status": "failed", "kind": type(error).__name__, "message": str(error)}
    if dist.get_rank() == 0:
        patiently(lambda: run.write_text(json.dumps(outcome) + "\n", *OUTCOME), "train: the outcome")


def _train(run: RunDir, task: dict[str, Any]) -> dict[str, Any]:
    clock = _Clock()
    from music_ray.reward.zero3 import build_engine, prepare_process

    task = {**task, "model": resolve_model(task["model"])}
    train = run.config.train
    prepare_process(train)
    clock.lap("imports")

    import torch.distributed as dist

    from music_ray.chat import ChatFormat
    from music_ray.reward import checkpoint
    from music_ray.reward.data import PairTokens
    from music_ray.reward.export import export_model
    from music_ray.reward.interrupt import InterruptWatch
    from music_ray.reward.logbook import Logbook
    from music_ray.reward.loop import Trainer, run_steps
    from music_ray.reward.order import PairOrder
    from music_ray.reward.passes import Passes, Rank
    from music_ray.reward.preemption import PreemptionWatch
    from music_ray.reward.preflight import check_gpu, own_gpu
    from music_ray.reward.validate import Validation

    rank = Rank(dist.get_rank(), dist.get_world_size(), _device())
    pairs = PairTokens.open(run, task["tokens"])
    if train.use_gpu:  # the driver may not have known which GPUs a growing cluster would give
        check_gpu(train, task["model"], pairs, own_gpu(rank.device))
    engine = build_engine(
        train, task["model"], head_seed=task["head_seed"], pad_token_id=task["pad_token_id"]
    )
    clock.lap("model")
    first = (checkpoint.complete_steps(run) or [0])[-1]
    if first:
        checkpoint.load(run, engine, first)
        clock.lap("resume")
    passes = Passes(train, engine, rank, task["pad_token_id"])
    validation = Validation(run, ChatFormat.load(task["model"], train.revision), passes)
    book = Logbook(run, first) if rank.rank == 0 else None

    def save(step: int) -> None:
        if book is not None:
            book.flush()  # A resume keeps the lines up to its checkpoint: they must be there by then.
        position = checkpoint.Position(step, run.config.seed, train.pairs_per_step, task["fingerprint"])
        best, scores = validation.best_step, validation.scores_at(step)
        checkpoint.save(run, engine, position, train.keep_checkpoints, best, scores)

    order = PairOrder(pairs.ids, run.config.seed, train.pairs_per_step, pairs.origins, train.mix_weights)
    trainer = Trainer(run.config, engine, pairs, order, passes, _flop_counter(run, engine, rank.world_size))
    watch, interrupt = PreemptionWatch(rank.device), InterruptWatch(run, rank.device)
    done = run_steps(trainer, first, validation, watch, interrupt, book, save)
    clock.lap("steps")
    if book is not None:
        book.close()
    if done < train.steps:
        return {"status": "interrupted", "step": done}
    exported = _chosen_weights(run, engine, validation.best_step)
    check = export_model(run, engine, pairs, passes, task["model"])
    clock.lap("export")
    return {
        "resumed_from": first,
        "exported_step": exported,
        "best_step": validation.best_step,
        "passes": {"origin": order.passes(train.steps), "source": order.passes(train.steps, pairs.sources)},
        "seconds": clock.laps,
        "export_check": asdict(check),
        "num_parameters": sum(one.ds_numel for one in engine.module.parameters()),
        "num_trained_parameters": sum(one.ds_numel for _, one in checkpoint.trained_parameters(engine)),
    }


def _chosen_weights(run: RunDir, engine: Any, best: int | None) -> int:
    """Puts the weights that are exported into the engine, and returns the step that they are of."""
    from music_ray.reward import checkpoint

    train = run.config.train
    if train.export == "best" and best not in (None, train.steps):
        checkpoint.load_weights(run, engine, best)
        return best
    return train.steps


def _flop_counter(run: RunDir, engine: Any, world_size: int) -> Any:
    """Counts FLOPs where the device's peak is known, None elsewhere."""
    import torch

    from music_ray.reward.metrics import FlopCounter, device_peak

    if not run.config.train.use_gpu:
        return None
    peak = device_peak(torch.cuda.get_device_name(), world_size, run.config.train.precision)
    return FlopCounter.of(engine.module.classifier, peak_flops=peak) if peak else None


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
