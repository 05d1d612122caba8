"""The train stage, assembled: tokens, checks, workers, outcome."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from typing import Any

from music_ray import errors
from music_ray.chat import ChatFormat
from music_ray.config import TrainConfig
from music_ray.config.base import select
from music_ray.memory.gpus import labelled_gpu
from music_ray.models import resolve_model
from music_ray.progress import say
from music_ray.ray_session import (
    check_each,
    check_labels,
    ensure_ray,
    is_this_machine,
    largest_cluster,
    present_resources,
    worker_config,
)
from music_ray.reward import checkpoint, preflight
from music_ray.reward.data import PairTokens, TokenFile, prepare_tokens
from music_ray.reward.interrupt import OUTCOME, forget_interrupt, save_before_the_end
from music_ray.reward.logbook import read_log
from music_ray.reward.tell import tell_steps
from music_ray.reward.tracker import Tracker, check_tracker
from music_ray.reward.validate import check_held_out
from music_ray.reward.worker import train_worker
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import content_id
from music_ray.storage import is_of_store


def run_train(run: RunDir) -> dict[str, Any]:
    """Trains the reward model on the mix and exports it to `model/`.

    Goes on from the newest complete checkpoint if there is one.

    Returns:
        counts, tokens, seconds_by_part, notes and output, for RunDir.finish_stage.

    Raises:
        InputError, ConfigError, EnvironmentLacksError: found before the workers start.
        RunFolderError: the checkpoints are of other pairs or settings.
        StageError: training ended before its last step; the checkpoints stay.
    """
    train = run.config.train
    task, tokens = prepare(run)
    outcome = _train_on_ray(run, task)
    last_lines = {line["step"]: line for line in read_log(run)}
    check = outcome["export_check"]
    return {
        "counts": {
            "pairs": tokens.num_pairs,
            "dropped": tokens.dropped,
            "steps": train.steps,
            "pairs_seen": train.steps * train.pairs_per_step,
            "parameters": outcome["num_parameters"],
            "trained_parameters": outcome["num_trained_parameters"],
        },
        "tokens": {"trained": sum(line["tokens"] for line in last_lines.values())},
        "seconds_by_part": outcome["seconds"],
        "passes": outcome["passes"],
        "notes": _notes(outcome),
        "output": digest_ids([task["fingerprint"], *check["model_rewards"]]),
    }


def _notes(outcome: dict[str, Any]) -> list[str]:
    check = outcome["export_check"]
    notes = [
        f"the exported model's rewards differ from the trained engine's by "
        f"{check['largest_difference']:.1e} (bound {check['bound']:.0e})"
    ]
    if outcome["best_step"] is not None:
        notes.append(
            f"exported: step {outcome['exported_step']}; "
            f"the best on held-out pairs: step {outcome['best_step']}"
        )
    notes.append(
        "passes over the pairs: "
        + ", ".join(f"{name} {count:.2f}" for name, count in outcome["passes"]["origin"].items())
    )
    return notes


def prepare(run: RunDir) -> tuple[dict[str, Any], TokenFile]:
    """Tokenises the mix and checks what can be checked without Ray.

    Returns:
        (the task of train_worker, the tokenised pairs).

    Raises:
        InputError, EnvironmentLacksError, RunFolderError: see run_train.
    """
    from music_ray.reward_model import head_seed

    train = run.config.train
    model = resolve_model(train.base_model)
    chat = ChatFormat.load(model, train.revision)
    tokens = prepare_tokens(run, chat)
    say(f"train: {tokens.num_pairs} pairs, {tokens.num_tokens} tokens{_dropped(tokens)}")
    preflight.check_pairs(train, tokens)
    preflight.check_memory(run, model, PairTokens.open(run, tokens.name))
    preflight.check_disk(run, model)
    check_tracker(train)
    if held_out := check_held_out(run):
        say(held_out)
    fingerprint = training_fingerprint(run, tokens)
    _check_checkpoints(run, fingerprint)
    task = {
        "config": worker_config(run.config).model_dump(mode="json"),
        "model": _for_workers(train.base_model, model),
        "tokens": tokens.name,
        "fingerprint": fingerprint,
        "pad_token_id": chat.pad_token_id,
        "head_seed": head_seed(run.config.seed),
    }
    return task, tokens


def _for_workers(name: str, resolved: str) -> str:
    """The model as workers on any machine find it: what lies on an object store is fetched by each."""
    if "://" in name:
        return name
    return os.path.abspath(resolved) if os.path.isdir(resolved) else resolved


def training_fingerprint(run: RunDir, tokens: TokenFile) -> str:
    """Hash of all that decides the weights: the pairs, the run seed and the keys that are not free."""
    decisive, defaults = (
        select(section, {"identity", "growth"}) for section in (run.config.train, TrainConfig())
    )
    # A key at its default is left out, so that a key that a later version adds changes nothing.
    keys = {name: value for name, value in decisive.items() if value != defaults[name]}
    return f"{content_id([tokens.key, run.config.seed, keys]):016x}"


def _check_checkpoints(run: RunDir, fingerprint: str) -> None:
    """Says where training goes on, or refuses checkpoints of another training."""
    steps = checkpoint.complete_steps(run)
    if not steps:
        return
    if checkpoint.read_index(run, steps[-1])["fingerprint"] != fingerprint:
        raise errors.RunFolderError(
            f"the checkpoints in {run.display('checkpoints')} are of other pairs or settings: set the old "
            "values again, or rename or remove that folder to train from the base model"
        )
    say(f"train: going on from the checkpoint of step {steps[-1]}")


# -- Ray -------------------------------------------------------------------------------------------


def _train_on_ray(run: RunDir, task: dict[str, Any]) -> dict[str, Any]:
    """Runs the workers to their end, telling of each step, and returns rank 0's outcome."""
    ensure_ray(run.config)
    train = run.config.train
    labels = train.node_labels
    check_labels(labels, "train.node_labels")
    now = present_resources(labels)
    if waiting := preflight.check_cluster(train, now, largest_cluster(labels)):
        say(waiting)
    check_each(
        {"CPU": train.cpus_per_worker, "GPU": float(train.use_gpu)},
        train.num_workers,
        "training worker",
        "lower train.cpus_per_worker or train.num_workers, or add nodes",
        labels,
    )
    if train.use_gpu:
        pairs = PairTokens.open(run, task["tokens"])
        preflight.check_gpu(train, resolve_model(task["model"]), pairs, labelled_gpu(now))
    if run.exists(*OUTCOME):
        run.fs.delete_file(run.path(*OUTCOME))
    forget_interrupt(run)
    say(f"train: starting {train.num_workers} workers with DeepSpeed ZeRO-3")
    with tempfile.TemporaryDirectory(prefix="music-ray-train-") as scratch:
        problem: list[BaseException] = []
        # Not Thread.join: interrupted by Ctrl-C, Python 3.11 takes the thread for ended (bpo-45274).
        ended = threading.Event()
        # In a thread of its own: Ray Train takes over Ctrl-C otherwise, and the steps are told from here.
        threading.Thread(target=_fit, args=(run, task, scratch, problem, ended), daemon=True).start()
        tracker = Tracker(run, task["fingerprint"]) if train.wandb_project else None
        try:
            tell_steps(run, ended, tracker)
        except KeyboardInterrupt:
            save_before_the_end(run, ended, lambda over: tell_steps(run, over, tracker))
            raise
    if problem:
        # The last of the workers' errors is in its text.
        kind = errors.TransientError if is_of_store(problem[0]) else errors.StageError
        raise kind(
            f"training stopped ({_reason(problem[0])}): run the same command again to go on from the last "
            "checkpoint"
        ) from problem[0]
    if not run.exists(*OUTCOME):
        raise errors.StageError("training ended without a result: run the same command again to go on")
    outcome = json.loads(run.read_text(*OUTCOME))
    if outcome["status"] != "done":
        raise getattr(errors, outcome["kind"])(outcome["message"])
    return outcome


def _fit(
    run: RunDir, task: dict[str, Any], scratch: str, problem: list[BaseException], ended: threading.Event
) -> None:
    try:
        from ray.exceptions import RayError
        from ray.train import TrainingFailedError

        try:
            _trainer(run, task, scratch).fit()
        except (TrainingFailedError, RayError, RuntimeError) as error:
            problem.append(error)
    finally:
        ended.set()


def _trainer(run: RunDir, task: dict[str, Any], scratch: str) -> Any:
    from ray.train import FailureConfig, LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    train = run.config.train
    return TorchTrainer(
        train_worker,
        train_loop_config=task,
        # mypy sees the classes of Ray Train's first version; ray_session turns the second one on.
        scaling_config=ScalingConfig(  # type: ignore[call-arg]
            num_workers=train.num_workers,
            use_gpu=train.use_gpu,
            resources_per_worker={"CPU": train.cpus_per_worker} | ({"GPU": 1} if train.use_gpu else {}),
            label_selector=train.node_labels or None,
        ),
        torch_config=_meeting_place(scratch),
        # Checkpoints are our own; Ray Train only wants a place for its bookkeeping.
        run_config=RayRunConfig(
            name=run.config.name,
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=train.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
        ),
    )


def _meeting_place(scratch: str) -> Any:
    """How the workers find each other: Ray Train's own way where they may be on several machines."""
    if not is_this_machine():
        return None
    from music_ray.reward.rendezvous import MeetByFile

    return MeetByFile(folder=scratch)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _dropped(tokens: TokenFile) -> str:
    if not tokens.dropped:
        return ""
    return ", dropped: " + ", ".join(f"{reason} {count}" for reason, count in tokens.dropped.items())
