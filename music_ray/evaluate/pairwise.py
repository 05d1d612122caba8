"""The evaluate stage: pairwise accuracy and margin on held-out pairs, trained beside untrained.

The untrained model is the one that training started from: the same base, and the same first reward
head. A tie (equal scores) counts as wrong and is stated. Accuracies, their breakdowns and the comparison of
the two are those of any models on any pairs (accuracy.py, comparison.py); the mean margin is added.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.config import RunConfig
from music_ray.errors import InputError, MusicRayError
from music_ray.evaluate.accuracy import CUTS, PairFacts, accuracy_by, parts
from music_ray.evaluate.comparison import compare_by
from music_ray.evaluate.stats import Resampling, bootstrap_mean
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
    facts = {name: _facts(pairs) for name, pairs in suites.items()}
    resampling = Resampling(config.bootstrap_samples, config.confidence, run.config.seed)
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in suites}
    run.clear("scores")  # those of other suites, from before the mix was changed
    for model_name, scorer in _models(run):
        for suite, pairs in suites.items():
            say(f"evaluate: scoring {len(pairs)} held-out pairs of {suite} with the {model_name} model")
            scores, lengths = _score_pairs(scorer, pairs, f"{model_name} on {suite}")
            _write_scores(run, suite, model_name, pairs, scores)
            found[suite][model_name] = scores
            results[suite]["models"][model_name] = summarise(scores, facts[suite], lengths, resampling)
    for suite, by_model in found.items():
        results[suite]["comparisons"] = _comparisons(by_model, facts[suite], resampling)
    written = {
        "confidence": config.confidence,
        "bootstrap_samples": config.bootstrap_samples,
        "length_unit": "tokens",
        "models": ["trained", "untrained"],
        "suites": results,
    }
    run.write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", "evals", "pairwise.json")
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

    def rewards(self, conversations: list[Any]) -> tuple[list[float], list[int]]:
        """Rewards of conversations of messages, and their lengths in tokens."""
        from music_ray import reward_model

        ids = [self.chat.conversation_ids(messages) for messages in conversations]
        rewards = reward_model.score(self.classifier, ids, batch_size=self.batch_size)
        return rewards, [len(one) for one in ids]


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


def _score_pairs(scorer: _Scorer, pairs: list[PreferencePair], label: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both sides and their lengths in tokens, each [n, 2]: chosen, rejected."""
    progress = Progress(f"evaluate: {label}", len(pairs))
    scores = np.empty((len(pairs), 2))
    lengths = np.empty((len(pairs), 2), dtype=int)
    chunk = 4 * scorer.batch_size
    for start in range(0, len(pairs), chunk):
        part = pairs[start : start + chunk]
        sides = [pair.chosen for pair in part] + [pair.rejected for pair in part]
        rewards, num_tokens = scorer.rewards(sides)
        there = slice(start, start + len(part))
        for values, of_sides in ((scores, rewards), (lengths, num_tokens)):
            values[there, 0] = of_sides[: len(part)]
            values[there, 1] = of_sides[len(part) :]
        progress.add(len(part))
    return scores, lengths


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


def _facts(pairs: list[PreferencePair]) -> PairFacts:
    return PairFacts(
        sources=np.array([pair.source for pair in pairs]),
        num_turns=np.array([pair.num_turns for pair in pairs]),
        branch_turns=np.array([pair.branch_turn for pair in pairs]),
        contexts=np.array([pair.conversation for pair in pairs], dtype=np.int64),
    )


def summarise(
    scores: np.ndarray, facts: PairFacts, lengths: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
    """One model on one suite: accuracy_by, with the mean margin and its interval beside each accuracy.

    Args:
        scores, lengths: [n, 2], chosen and rejected.
    """
    margins = scores[:, 0] - scores[:, 1]
    found = accuracy_by(scores, facts, lengths, resampling)
    found["overall"] |= _mean_margin(margins, facts.contexts, resampling)
    for cut in CUTS:
        for name, part in parts(facts, cut):
            found[cut][name] |= _mean_margin(margins[part], facts.contexts[part], resampling)
    return found


def _comparisons(
    by_model: dict[str, np.ndarray], facts: PairFacts, resampling: Resampling
) -> list[dict[str, Any]]:
    """Each two models in their order, by their names: the trained one less the untrained one."""
    return [
        {"first": one, "second": other} | compare_by(by_model[one], by_model[other], facts, resampling)
        for one, other in combinations(by_model, 2)
    ]


def _mean_margin(
    margins: np.ndarray, contexts: np.ndarray, resampling: Resampling
) -> dict[str, float | None]:
    """Over the pairs whose scores are numbers; None where there is none."""
    known = np.isfinite(margins)
    if not known.any():
        return dict.fromkeys(("mean_margin", "mean_margin_low", "mean_margin_high"))
    found = bootstrap_mean(margins[known], contexts[known], resampling)
    return {"mean_margin": found.value, "mean_margin_low": found.low, "mean_margin_high": found.high}


def _margin_in_words(overall: dict[str, Any]) -> str:
    if overall["mean_margin"] is None:
        return "no margin, for no pair has two scores that are numbers"
    low, high = overall["mean_margin_low"], overall["mean_margin_high"]
    return f"mean margin {overall['mean_margin']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _say_result(suite: str, result: dict[str, Any], confidence: float) -> None:
    for name, numbers in result["models"].items():
        overall = numbers["overall"]
        say(
            f"evaluate: {suite}, {name}: accuracy {overall['accuracy']:.3f} "
            f"[{overall['accuracy_low']:.3f}, {overall['accuracy_high']:.3f}], {_margin_in_words(overall)} "
            f"({result['num_pairs']} pairs, {confidence:.0%} intervals)"
        )
    for one in result["comparisons"]:
        overall = one["overall"]
        say(
            f"evaluate: {suite}, {one['first']} - {one['second']}: accuracy {overall['difference']:+.3f} "
            f"[{overall['difference_low']:+.3f}, {overall['difference_high']:+.3f}], p = "
            f"{overall['p_value']:.4f} by exchanges of whole contexts"
        )
