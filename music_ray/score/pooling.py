"""What vLLM is told when it scores: the same for scores made here and for scores that are served.

The pooling runner takes the last token of a prompt. Its own default is the sigmoid of the head's output;
a reward is the output itself.
"""

from __future__ import annotations

from typing import Any

from music_ray.config import EngineConfig
from music_ray.engines.vllm_settings import DeviceFacts, ModelFacts, derive_settings, engine_arguments

RAW: dict[str, Any] = {"task": "classify", "use_activation": False}
"""Pooling parameters of a reward."""


def pooling_arguments(
    engine: EngineConfig, device: DeviceFacts, facts: ModelFacts
) -> tuple[dict[str, Any], str]:
    """Arguments of vLLM's EngineArgs, and one line for the log.

    Raises:
        InputError: the weights do not fit the GPUs.
    """
    settings = derive_settings(engine, device, facts)
    arguments = engine_arguments(engine, engine.model, settings)
    return arguments | {"runner": "pooling", "convert": "classify"}, settings.line()


def pooling_params() -> Any:
    """vLLM's PoolingParams of one request (vLLM writes into it, so a new one each)."""
    from vllm import PoolingParams

    return PoolingParams(**RAW)


def command_line(arguments: dict[str, Any]) -> list[str]:
    """The same arguments as words for vLLM's server."""
    words = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if name == "trust_remote_code" or value is None:  # remote code stays off by default
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words
