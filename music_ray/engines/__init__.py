"""Engines: whatever turns a prompt into text. One protocol (base), chosen by configuration (make_engine)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from music_ray.config import EngineConfig
    from music_ray.engines.base import Engine


def make_engine(config: EngineConfig) -> Engine:
    """Starts the configured engine in this process; it is ready when this returns."""
    if config.kind == "scripted":
        from music_ray.engines.scripted import ScriptedEngine

        return ScriptedEngine()
    from music_ray.engines.vllm_local import VllmEngine

    return VllmEngine(config)
