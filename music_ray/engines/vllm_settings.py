"""What vLLM is told in numbers: derived from the model and the device where the configuration is silent.

`derive_settings` is a pure function; `model_facts` and `device_facts` look at the model's config.json and
at the machine. vLLM's own defaults differ by device and mode, so everything here is always explicit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from music_ray.config import EngineConfig
from music_ray.errors import InputError
from music_ray.models import reason_of

CPU_SEQS = (8, 64)
"""Least and most derived max_num_seqs on the CPU; beyond, more rows no longer fill a few cores better."""
GPU_SEQS = (16, 1024)
"""The same on GPUs; 1,024 is what vLLM's own server takes on the largest ones."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Where an engine runs."""

    kind: Literal["cpu", "gpu"]
    memory_bytes: int = 0
    """Memory of one GPU; on the CPU nothing is derived from it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The sizes of a decoder that decide what its weights and its keys and values take."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    num_parameters: int

    @classmethod
    def of(cls, config: Any) -> ModelFacts:
        """From a transformers configuration of a decoder with a gated feed-forward network.

        The parameters are counted from the shapes: exact but for norms and biases in the Llama, Gemma,
        Qwen and Mistral families; experts count all.
        """
        config = config.get_text_config()
        hidden, heads = config.hidden_size, config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or hidden // heads
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
        width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
        attention = 2 * hidden * head_dim * (heads + kv_heads)
        embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
        layers = config.num_hidden_layers
        parameters = embeddings + layers * (attention + 3 * hidden * width * experts)
        return cls(layers, kv_heads, head_dim, parameters)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one engine runs with."""

    arrangement: Literal["in_process", "subprocess"]
    dtype: str
    """Number format of weights, keys and values; 'auto' is the model's own 16-bit one on GPUs."""
    kv_bytes_per_token: int
    """Key-value memory of one token on one device."""
    kv_tokens: int
    """Tokens whose keys and values fit, as far as the facts tell."""
    max_num_seqs: int
    max_num_batched_tokens: int
    derived: tuple[str, ...]
    """Which of the two the configuration left open."""

    def line(self) -> str:
        """One line for the log."""
        found = [
            f"{name} {getattr(self, name):,}" + (" (derived)" if name in self.derived else "")
            for name in ("max_num_seqs", "max_num_batched_tokens")
        ]
        return f"{self.arrangement}, {self.dtype}, {', '.join(found)}, room for {self.kv_tokens:,} tokens"


def derive_settings(config: EngineConfig, device: DeviceFacts, model: ModelFacts) -> Settings:
    """The settings that a configuration means on a device.

    One token's keys and values take 2 · layers · key-value heads · head_dim · bytes a number; tensor
    parallelism divides the heads. The memory for them is kv_cache_gib on the CPU and, on a GPU,
    gpu_memory_utilization of its memory less the weights. A conversation is half of max_model_len long in
    the middle of its life, so max_num_seqs is how many of that length fit, at least 8 and at most 64 on
    the CPU, 16 and 1,024 on GPUs. Prefixes that conversations share, and activations, are left out: they
    pull in opposite directions, and vLLM lets requests wait when the memory is full.

    Raises:
        InputError: the weights alone do not fit the GPUs.
    """
    on_cpu = device.kind == "cpu"
    dtype = "float32" if on_cpu and config.dtype == "auto" else config.dtype
    number = 4 if dtype == "float32" else 2
    split = config.tensor_parallel_size
    kv_bytes = 2 * model.num_layers * math.ceil(model.num_kv_heads / split) * model.head_dim * number
    memory = config.kv_cache_gib * _GIB if on_cpu else _gpu_kv_memory(config, device, model, number)
    kv_tokens = int(memory // kv_bytes)
    least, most = CPU_SEQS if on_cpu else GPU_SEQS
    seqs = config.max_num_seqs or min(max(2 * kv_tokens // config.max_model_len, least), most)
    tokens = config.max_num_batched_tokens or (max(config.max_model_len, 2048) if on_cpu else 16384)
    arrangement: Literal["in_process", "subprocess"] = "in_process" if on_cpu else "subprocess"
    return Settings(
        arrangement=arrangement if config.arrangement == "auto" else config.arrangement,
        dtype=dtype,
        kv_bytes_per_token=kv_bytes,
        kv_tokens=kv_tokens,
        max_num_seqs=seqs,
        max_num_batched_tokens=max(tokens, seqs),  # a step must hold one token of each
        derived=tuple(
            name for name in ("max_num_seqs", "max_num_batched_tokens") if getattr(config, name) is None
        ),
    )


def _gpu_kv_memory(config: EngineConfig, device: DeviceFacts, model: ModelFacts, number: int) -> float:
    weights = model.num_parameters * number / config.tensor_parallel_size
    room = config.gpu_memory_utilization * device.memory_bytes
    if weights >= room:
        raise InputError(
            f"the weights of {config.model} take {weights / _GIB:.1f} GiB on each of "
            f"{config.tensor_parallel_size} GPU(s), engine.gpu_memory_utilization "
            f"({config.gpu_memory_utilization:g}) leaves {room / _GIB:.1f} GiB of its "
            f"{device.memory_bytes / _GIB:.1f}: raise engine.tensor_parallel_size and "
            "engine.gpus_per_engine, or use a smaller model or larger GPUs"
        )
    return room - weights


def model_facts(config: EngineConfig, model: str) -> ModelFacts:
    """The sizes of a model folder or hub model.

    Raises:
        InputError: no configuration there, or one of another kind of model.
    """
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(model, revision=config.revision, trust_remote_code=False)
        return ModelFacts.of(found)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"cannot tell the size of {config.model} from its config.json ({reason_of(error)}): name a "
            "decoder model that transformers knows"
        ) from None


def device_facts(config: EngineConfig) -> DeviceFacts:
    """The device that an engine of this configuration gets in this process."""
    if config.gpus_per_engine == 0:
        return DeviceFacts("cpu")
    from vllm.platforms import current_platform

    return DeviceFacts("gpu", current_platform.get_device_total_memory())


def engine_arguments(config: EngineConfig, model: str, settings: Settings) -> dict[str, Any]:
    """Arguments of vLLM's EngineArgs and of its LLM class."""
    arguments: dict[str, Any] = {
        "model": model,
        "revision": config.revision,
        "dtype": settings.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "enable_prefix_caching": True,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel_size,
        "disable_log_stats": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": 0,
    }
    if config.tensor_parallel_size > 1:
        arguments["distributed_executor_backend"] = "mp"  # not Ray: the actor holds all of its GPUs
    if config.gpus_per_engine == 0:
        # Unset, vLLM takes what it finds.
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * _GIB)
        # Only whole blocks come from the prefix cache. vLLM's 128 here are longer than most messages, and
        # 32 is the least that its CPU kernels like.
        arguments["block_size"] = 32
        # vLLM 0.32 on the CPU dies when a request with its own seed has its prefill split.
        arguments["enable_chunked_prefill"] = False
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    return arguments
