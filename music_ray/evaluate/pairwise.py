"""The evaluate stage: pairwise accuracy and margin on held-out pairs, trained beside untrained.

The untrained model is the one that training started from: the same base, and the same first reward
head. A tie (equal scores) counts as wrong and is stated.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.config import RunConfig
from music_ray.errors import InputError, MusicRayError
from music_ray.evaluate.stats import clustered_bootstrap
from music_ray.models import resolve_model
from music_ray.progress import Progress, say
from music_ray.ray_session import check_resources, ensure_ray, worker_config
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import PreferencePair, content_id, pair_from_row
from music_ray.score_section import with_scores
from music_ray.storage import fetch

SUITES = ("preferences", "music")
SCORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("num_turns", pa.int32()),
        ("branch_turn", pa.int32()),
        ("chosen_score", pa.float64()),
        ("rejected_score", pa.float64()),
    ]
)


def run_evaluate(run: RunDir) -> dict[str, Any]:
    """Scores both held-out suites with both models; writes scores/ and evals/pairwise.json.

    Runs in this process, or with evaluate.use_gpu on whichever node Ray finds a GPU: a cluster's head,
    where the driver is, has none.

    Raises:
        InputError: nothing was held out.
        EnvironmentLacksError: the cluster has no GPU, nor may it add one.
    """
    if not run.config.evaluate.use_gpu:
        return evaluate_here(run)
    ensure_ray(run.config)
    check_resources({"GPU": 1.0}, "evaluate.use_gpu", "set evaluate.use_gpu=false, or add a GPU node")
    return evaluate_on_ray(run, num_gpus=1)


def evaluate_on_ray(run: RunDir, num_gpus: int) -> dict[str, Any]:
    """evaluate_here in a Ray task.

    Raises:
        MusicRayError: as evaluate_here; it comes back as it was raised there.
    """
    import ray
    from ray.exceptions import RayTaskError

    def task(config_json: str) -> dict[str, Any]:
        return evaluate_here(RunDir(RunConfig.model_validate_json(config_json)))

    remote = ray.remote(num_gpus=num_gpus)(task)
    try:
        return ray.get(remote.remote(worker_config(run.config).model_dump_json()))
    except RayTaskError as error:
        if isinstance(error.cause, MusicRayError):
            raise error.cause from None
        raise


def evaluate_here(run: RunDir) -> dict[str, Any]:
    """See run_evaluate; in this process."""
    config = run.config.evaluate
    suites = {name: pairs for name in SUITES if (pairs := _held_out(run, name))}
    if not suites:
        raise InputError(
            "no pair was held out, so there is nothing to evaluate on: raise data.held_out_fraction or "
            "mix.held_out_fraction"
        )
    results: dict[str, Any] = {
        name: {
            "num_pairs": len(pairs),
            "num_conversations": len({pair.conversation for pair in pairs}),
            "models": {},
        }
        for name, pairs in suites.items()
    }
    run.clear("scores")  # those of other suites, from before the mix was changed
    for model_name, scorer in _models(run):
        for suite, pairs in suites.items():
            say(f"evaluate: scoring {len(pairs)} held-out pairs of {suite} with the {model_name} model")
            scores = _score_pairs(scorer, pairs, f"{model_name} on {suite}")
            _write_scores(run, suite, model_name, pairs, scores)
            results[suite]["models"][model_name] = _summarise(run, pairs, scores)
    written = {
        "confidence": config.confidence,
        "bootstrap_samples": config.bootstrap_samples,
        "models": ["trained", "untrained"],
        "suites": results,
    }
    run.write_text(json.dumps(written, indent=2) + "\n", "evals", "pairwise.json")
    _add_to_card(run, written)
    for suite, result in results.items():
        _say_result(suite, result, config.confidence)
    counts = {f"pairs_{name}": len(pairs) for name, pairs in suites.items()}
    return {"counts": counts, "output": digest_ids([json.dumps(written, sort_keys=True)])}


def _add_to_card(run: RunDir, results: dict[str, Any]) -> None:
    """Puts the scores into the model's card; neither its weights nor the train stage's record change."""
    if run.exists("model", "README.md"):
        run.write_text(with_scores(run.read_text("model", "README.md"), results), "model", "README.md")


def _held_out(run: RunDir, suite: str) -> list[PreferencePair]:
    if not run.exists("mix", "held_out", f"{suite}.parquet"):
        return []
    path = run.path("mix", "held_out", f"{suite}.parquet")
    with run.open_parquet(path) as file:
        pairs = [pair_from_row(row) for row in file.read().to_pylist()]
    pairs.sort(key=lambda pair: content_id(["evaluate", pair.id]))
    return pairs[: run.config.evaluate.max_pairs]


class _Scorer:
    """A loaded reward model with the chat format that it was trained with."""

    def __init__(self, classifier: Any, chat: Any, batch_size: int) -> None:
        self.classifier, self.chat, self.batch_size = classifier, chat, batch_size

    def rewards(self, conversations: list[Any]) -> list[float]:
        """Rewards of conversations of messages."""
        from music_ray import reward_model

        ids = [self.chat.conversation_ids(messages) for messages in conversations]
        return reward_model.score(self.classifier, ids, batch_size=self.batch_size)


def _models(run: RunDir) -> Iterator[tuple[str, _Scorer]]:
    """Both models, one in memory at a time."""
    import torch

    from music_ray import reward_model
    from music_ray.chat import ChatFormat

    config, train = run.config.evaluate, run.config.train
    device = "cuda" if config.use_gpu else "cpu"
    if config.use_gpu and not torch.cuda.is_available():
        raise InputError("evaluate.use_gpu is true, but torch sees no GPU: set evaluate.use_gpu=false")
    dtype = "bfloat16" if config.use_gpu and train.precision == "bfloat16" else "float32"
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = _local_copy(run, Path(temporary))
        chat = ChatFormat.load(folder)
        trained = reward_model.load_reward_model(folder, attention=train.padded_attention, dtype=dtype)
        yield "trained", _Scorer(trained.to(device), chat, config.batch_size)
        del trained
    base = resolve_model(train.base_model)
    untrained = reward_model.load_reward_model(
        base,
        revision=train.revision,
        num_layers=train.num_layers,
        attention=train.padded_attention,
        dtype=dtype,
        head_seed=reward_model.head_seed(run.config.seed),
    )
    chat = ChatFormat.load(base, train.revision)
    yield "untrained", _Scorer(untrained.to(device), chat, config.batch_size)


def _local_copy(run: RunDir, temporary: Path) -> str:
    """The exported model's folder on this machine."""
    if run.is_local:
        return run.path("model")
    fetch(run.fs, run.path("model"), temporary)
    return str(temporary)


def _score_pairs(scorer: _Scorer, pairs: list[PreferencePair], label: str) -> np.ndarray:
    """Scores of both sides, [n, 2]: chosen, rejected."""
    progress = Progress(f"evaluate: {label}", len(pairs))
    scores = np.empty((len(pairs), 2))
    chunk = 4 * scorer.batch_size
    for start in range(0, len(pairs), chunk):
        part = pairs[start : start + chunk]
        sides = [pair.chosen for pair in part] + [pair.rejected for pair in part]
        rewards = scorer.rewards(sides)
        scores[start : start + len(part), 0] = rewards[: len(part)]
        scores[start : start + len(part), 1] = rewards[len(part) :]
        progress.add(len(part))
    return scores


def _write_scores(
    run: RunDir, suite: str, model_name: str, pairs: list[PreferencePair], scores: np.ndarray
) -> None:
    table = pa.table(
        {
            "id": [pair.id for pair in pairs],
            "num_turns": [pair.num_turns for pair in pairs],
            "branch_turn": [pair.branch_turn for pair in pairs],
            "chosen_score": scores[:, 0],
            "rejected_score": scores[:, 1],
        },
        schema=SCORE_SCHEMA,
    )
    run.write_table(table, "scores", f"{suite}-{model_name}.parquet")


def _summarise(run: RunDir, pairs: list[PreferencePair], scores: np.ndarray) -> dict[str, Any]:
    turns = np.array([pair.num_turns for pair in pairs])
    groups = np.array([pair.conversation for pair in pairs])
    by_turns = {
        str(number): accuracy_and_margin(run, scores[turns == number], groups[turns == number])
        for number in sorted(set(turns.tolist()))
    }
    return {"overall": accuracy_and_margin(run, scores, groups), "by_num_turns": by_turns}


def accuracy_and_margin(run: RunDir, scores: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Accuracy (ties are wrong) and mean margin with their intervals.

    Args:
        scores: [n, 2], chosen and rejected.
        groups: conversation of each pair, [n].
    """
    config = run.config.evaluate
    margins = scores[:, 0] - scores[:, 1]
    options = {
        "samples": config.bootstrap_samples,
        "confidence": config.confidence,
        "seed": run.config.seed,
    }
    accuracy = clustered_bootstrap((margins > 0).astype(float), groups, **options)  # type: ignore[arg-type]
    margin = clustered_bootstrap(margins, groups, **options)  # type: ignore[arg-type]
    return {
        "num_pairs": len(margins),
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "ties": int((margins == 0).sum()),
        "mean_margin": margin.value,
        "mean_margin_low": margin.low,
        "mean_margin_high": margin.high,
    }


def _say_result(suite: str, result: dict[str, Any], confidence: float) -> None:
    for name, numbers in result["models"].items():
        overall = numbers["overall"]
        say(
            f"evaluate: {suite}, {name}: accuracy {overall['accuracy']:.3f} "
            f"[{overall['accuracy_low']:.3f}, {overall['accuracy_high']:.3f}], mean margin "
            f"{overall['mean_margin']:+.4f} [{overall['mean_margin_low']:+.4f}, "
            f"{overall['mean_margin_high']:+.4f}] ({result['num_pairs']} pairs, {confidence:.0%} intervals)"
        )
