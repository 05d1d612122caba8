"""Configuration of scoring conversations with a finished reward model (`music-ray score`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from music_ray.config.base import FREE, Section


class ScoreConfig(Section):
    """Scoring conversations with a finished reward model. How many engines there are, their GPUs, number
    format and longest conversation (max_model_len) are keys of `engine`; tasks, shards and errors are
    handled as `generate` says."""

    engine: Literal["auto", "vllm", "huggingface", "packed"] = Field(default="auto", json_schema_extra=FREE)
    """vllm: vLLM's pooling runner, without padding, and with what conversations begin with in common
    computed once. huggingface: transformers' own forward pass over padded batches, for models that vLLM
    does not know. packed: the same on the CPU without padding, and with common beginnings computed once; for
    small models the fastest. auto: vllm where it is installed."""

    batch_size: int = Field(default=8, ge=1, json_schema_extra=FREE)
    """huggingface: conversations in one forward pass; those of like length go together."""

    pack_tokens: int = Field(default=1024, ge=16, json_schema_extra=FREE)
    """packed: tokens in one forward pass; a longer conversation has one of its own. Activations of so many
    stay in a processor's cache where the model is small."""
