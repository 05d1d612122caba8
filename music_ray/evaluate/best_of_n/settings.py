"""With which settings best-of-N runs: its folder, its pool of actors, its scorers, its devices."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from music_ray.config import ContrastConfig, EngineConfig, RunConfig
from music_ray.config.load import resolve_config
from music_ray.errors import ConfigError
from music_ray.jobs.room import expected_places

_PER_TASK = 2
"""Prompts in one task, where generate.conversations_per_task is not given: each is dozens of requests."""


def placed(config: RunConfig, out: str) -> RunConfig:
    """The configuration for a folder of results.

    Args:
        out: path or URI.

    Raises:
        ConfigError: its last part can't name a folder.
    """
    base, mark, options = out.partition("?") if "://" in out else (os.path.abspath(out), "", "")
    parent, _, name = base.rstrip("/").rpartition("/")
    there = resolve_config({"name": name, "runs_dir": f"{parent or '/'}{mark}{options}"})
    # Nothing is contrasted: an engine for it would be started for nothing.
    contrast = ContrastConfig(sampling=config.assistant.sampling)
    return config.model_copy(
        update={"name": there.name, "runs_dir": there.runs_dir, "contrast": contrast, **_spread(config)}
    )


def _spread(config: RunConfig) -> dict[str, Any]:
    """Fewer prompts at once than there would be rollouts: each has N requests in the engine."""
    generate, engine = config.generate, config.engine
    if generate.model_fields_set & {"conversations_per_task", "tasks_in_flight"}:
        return {}
    at_once = max(2, math.ceil(1.5 * expected_places(engine, {}) / max(config.best_of_n.n) / _PER_TASK))
    spread = {"conversations_per_task": _PER_TASK, "tasks_in_flight": at_once}
    return {"generate": generate.model_copy(update=spread)}


def check_device(config: RunConfig) -> None:
    """Whether the reward models have room where they are to be.

    Raises:
        ConfigError: they would be on a GPU that is not there, or whose memory the engine takes.
    """
    engine = config.engine
    if config.best_of_n.scorer_device == "cpu" or engine.kind != "vllm":
        return
    if not engine.gpus_per_engine:
        raise ConfigError(
            "best_of_n.scorer_device is gpu, but engine.gpus_per_engine is 0: set it, or use "
            "best_of_n.scorer_device=cpu"
        )
    if "gpu_memory_utilization" not in engine.model_fields_set:
        raise ConfigError(
            "best_of_n.scorer_device=gpu puts the reward models on the engine's GPU, of which the engine "
            f"takes {engine.gpu_memory_utilization:.0%} unless it is told otherwise: set "
            "engine.gpu_memory_utilization so that they have room, or use best_of_n.scorer_device=cpu"
        )


def check_limits(config: RunConfig) -> None:
    """Refuses caps that nobody would watch: a user who sets one counts on it.

    Raises:
        ConfigError: one of `limits` is set.
    """
    caps = config.limits.model_dump(exclude_none=True)
    if caps:
        name, value = next(iter(caps.items()))
        raise ConfigError(
            f"limits.{name} ({value:g}) is not watched by best-of-n: set limits.{name}=null for none"
        )


def pool_config(config: RunConfig) -> RunConfig:
    """What an actor asks Ray for: the engine's resources, and the scorers' GPU where the engine has none."""
    engine = config.engine
    if config.best_of_n.scorer_device == "cpu" or engine.kind == "vllm":
        return config
    names = ("model", "max_model_len", "max_num_seqs", "cpus_per_engine", "node_labels", "min_engines")
    kept = {name: getattr(engine, name) for name in (*names, "max_engines")}
    pool = EngineConfig(kind="scripted", gpus_per_engine=1, **kept)
    return config.model_copy(update={"engine": pool})


def scorer_words(config: RunConfig) -> Sequence[str]:
    """Overrides for a scorer's configuration."""
    section = config.best_of_n
    words = [
        "score.engine=huggingface",
        f"score.batch_size={config.score.batch_size}",
        f"engine.dtype={section.scorer_dtype}",
        f"engine.gpus_per_engine={int(section.scorer_device == 'gpu')}",
        f"engine.max_engines={config.engine.max_engines}",
    ]
    if section.scorer_max_len is not None:
        words.append(f"engine.max_model_len={section.scorer_max_len}")
    return words
