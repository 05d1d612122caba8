"""Reward trainers in processes of their own, each idle while another one works.

`serve_ours` is the train stage's own engine, passes and optimizer step on one or two ranks, without Ray
and without logs; `serve_trl` is TRL's RewardTrainer. Both start from the same weights and the same head,
train on pairs as token ids, with the same AdamW, in float32, and say how long each step took, its loss
and the process's peak memory. This module knows nothing of rounds or tables.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from music_ray.config import TrainConfig
from music_ray.progress import quieten_libraries

LEARNING_RATE = 1e-5
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Work:
    """Steps of pairs."""

    steps: list[list[tuple[list[int], list[int]]]]
    """[step][pair]: token ids of chosen and rejected side."""
    settings: dict[str, Any] = field(default_factory=dict)
    """serve_trl alone: keys of its configuration."""


@dataclass(frozen=True)
class Done:
    """What a trainer says of some work."""

    seconds: list[float]
    """Of each step."""
    losses: list[float]
    computed_tokens: int
    """Tokens that went through the model, padding included; 0 where the trainer does not say."""
    peak_bytes: list[int]
    """Most memory that each rank's process ever had."""


class Contender:
    """One trainer: a process, or one for each rank."""

    def __init__(self, target: Any, model: str, settings: dict[str, Any], ranks: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._connections, self._processes = [], []
        cores = len(os.sched_getaffinity(0))
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // ranks))
        for rank in range(ranks):
            mine, theirs = context.Pipe()
            place = (rank, ranks, f"{self._folder.name}/store", max(1, cores // ranks))
            process = context.Process(target=target, args=(theirs, model, settings, place), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(mine)
            self._processes.append(process)
        for one in self._connections:
            one.recv()  # ready

    def run(self, work: Work) -> Done:
        """Trains on the work; the weights and the optimizer's state stay as they are then."""
        for one in self._connections:
            one.send(work)
        answers: list[Done] = [one.recv() for one in self._connections]
        first = answers[0]
        peaks = [one.peak_bytes[0] for one in answers]
        return Done(first.seconds, first.losses, first.computed_tokens, peaks)

    def close(self) -> None:
        """Ends the processes."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
        self._folder.cleanup()


def train_config(settings: dict[str, Any], threads: int) -> TrainConfig:
    """The train section that both trainers follow."""
    return TrainConfig.model_validate(
        {
            "learning_rate": LEARNING_RATE,
            "adam_betas": _BETAS,
            "lr_schedule": "constant",
            "weight_decay": 0.0,
            "cpus_per_worker": threads,
            **settings,
        }
    )


def serve_ours(connection: Connection, model: str, settings: dict[str, Any], place: Any) -> None:
    """The train stage's steps; every rank gets all the work and does its share."""
    rank, world_size, store, threads = place
    quieten_libraries()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    train = train_config(settings, threads)
    from music_ray.reward.zero3 import build_engine, prepare_process

    prepare_process(train)
    import torch
    import torch.distributed as dist

    from music_ray.chat import ChatFormat
    from music_ray.reward.passes import Passes, Rank

    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world_size)
    pad = ChatFormat.load(model).pad_token_id
    engine = build_engine(train, model, head_seed=1, pad_token_id=pad)
    passes = Passes(train, engine, Rank(rank, world_size, torch.device("cpu")), pad)
    connection.send("ready")
    for work in _works(connection):
        seconds, losses, computed = [], [], 0
        for step in work.steps:
            pairs = _token_table(step)
            began = time.perf_counter()
            _, loss, tokens = passes.learn(pairs, range(len(step)))
            engine.step()
            seconds.append(time.perf_counter() - began)
            losses.append(float(loss.mean()))
            computed += tokens
        connection.send(Done(seconds, losses, computed, [_peak_bytes()]))


def _token_table(step: list[tuple[list[int], list[int]]]) -> Any:
    import pyarrow as pa

    from music_ray.reward.data import PairTokens
    from music_ray.reward.tokenise import TOKENS_SCHEMA

    rows = [
        {"id": str(number), "source": "", "origin": "D", "chosen": chosen, "rejected": rejected}
        for number, (chosen, rejected) in enumerate(step)
    ]
    return PairTokens(pa.Table.from_pylist(rows, schema=TOKENS_SCHEMA))


def serve_trl(connection: Connection, model: str, settings: dict[str, Any], place: Any) -> None:
    """TRL's RewardTrainer on the same model; its optimizer begins anew with every piece of work."""
    quieten_libraries()
    import torch

    torch.set_num_threads(place[3])
    from music_ray.chat import ChatFormat
    from music_ray.reward_model import load_reward_model

    chat = ChatFormat.load(model)
    classifier = load_reward_model(model, num_layers=settings.get("num_layers"), head_seed=1)
    chat.tokenizer.pad_token = chat.tokenizer.convert_ids_to_tokens(chat.pad_token_id)
    connection.send("ready")
    with tempfile.TemporaryDirectory() as folder:
        for work in _works(connection):
            connection.send(_train_with_trl(classifier, chat.tokenizer, work, folder))


def _train_with_trl(classifier: Any, tokenizer: Any, work: Work, folder: str) -> Done:
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    pairs = [pair for step in work.steps for pair in step]
    rows = [
        {"chosen_ids": chosen, "rejected_ids": rejected, "length": max(len(chosen), len(rejected))}
        for chosen, rejected in pairs
    ]
    per_pass = work.settings.get("per_device_train_batch_size", 8)
    config = RewardConfig(
        output_dir=folder,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta1=_BETAS[0],
        adam_beta2=_BETAS[1],
        max_grad_norm=1.0,
        max_steps=len(work.steps),
        gradient_accumulation_steps=len(work.steps[0]) // per_pass,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
        max_length=None,
        remove_unused_columns=False,  # else the column that it sorts by is gone before it sorts
        **{"train_sampling_strategy": "sequential", "per_device_train_batch_size": per_pass} | work.settings,
    )
    stamps: list[float] = []

    class Clock(TrainerCallback):
        """Notes when steps begin and end."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

    trainer = RewardTrainer(
        model=classifier,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    seconds = [end - begin for begin, end in zip(stamps[::2], stamps[1::2], strict=True)]
    return Done(seconds, losses, 0, [_peak_bytes()])


def _works(connection: Connection) -> Any:
    """What the other end sends, until it closes."""
    while True:
        try:
            yield connection.recv()
        except EOFError:
            return


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
