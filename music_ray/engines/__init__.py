"""Engines: whatever turns a prompt into text. One protocol (base), chosen by configuration (make_engine)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from music_ray.config import EngineConfig, RunConfig
    from music_ray.engines.base import Engine, RoleEngines


def make_engine(config: EngineConfig) -> Engine:
    """Starts the configured engine in this process; it is ready when this returns.

    Raises:
        InputError: the model can't be used, or an endpoint's key is missing or it does not answer.
    """
    if config.kind == "scripted":
        from music_ray.engines.scripted import ScriptedEngine

        return ScriptedEngine()
    if config.kind == "endpoint":
        from music_ray.engines.endpoint import EndpointEngine

        return EndpointEngine(config)
    from music_ray.engines.vllm_local import VllmEngine

    return VllmEngine(config)


def make_engines(config: RunConfig) -> RoleEngines:
    """Starts the engines of all roles; roles with equal configurations share one.

    Raises:
        InputError: as make_engine, or an endpoint that plays the user can't continue a chat template.
    """
    from music_ray.engines.base import RoleEngines
    from music_ray.engines.endpoint import EndpointEngine

    assistant = config.engine
    user, contrast = config.user.engine or assistant, config.contrast.engine or assistant
    engines: dict[EngineConfig, Engine] = {}
    # Endpoints first: they say at once what is wrong, while a local model takes minutes to load.
    for one in sorted(dict.fromkeys((assistant, user, contrast)), key=lambda one: one.kind == "vllm"):
        engines[one] = engine = make_engine(one)
        if one == user and config.user.mode == "template" and isinstance(engine, EndpointEngine):
            engine.prepare_template()
    return RoleEngines(assistant=engines[assistant], user=engines[user], contrast=engines[contrast])
