"""What a model's config.json says about its size: parameters, and key-value memory.

Read are folders on this machine, the hub's cache, and a short table of published sizes for the models
that the shipped configurations name, which are gated. Of other hub models nothing is known here, and
nothing is guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from music_ray import models
from music_ray.stored_models import stored_configuration

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_GEMMA_2 = {
    "vocab_size": 256_000,
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "dtype": "bfloat16",
}
PUBLISHED: dict[str, dict[str, Any]] = {
    name: _GEMMA_2
    | {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": intermediate,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head,
    }
    for stem, (hidden, layers, intermediate, heads, kv_heads, head) in {
        "google/gemma-2-2b": (2304, 26, 9216, 8, 4, 256),
        "google/gemma-2-9b": (3584, 42, 14_336, 16, 8, 256),
        "google/gemma-2-27b": (4608, 46, 36_864, 32, 16, 128),
    }.items()
    for name in (stem, f"{stem}-it")
}  # fmt: skip
"""Gemma 2, arXiv 2408.00118, table 1 (its feed-forward dimension counts both of the gated halves)."""


@dataclass(frozen=True)
class ModelSize:
    """A decoder model's size."""

    hidden: int
    intermediate: int
    num_layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norms_per_layer: int = 2
    """Root-mean-square norms of a layer; Gemma-2 and -3 have four."""
    soft_capped: bool = False
    """Whether the attention logits go through a tanh."""
    dtype: str = ""
    """Of the weights in the files; empty where they don't say."""

    @property
    def layer_parameters(self) -> int:
        """Of one layer's attention and feed-forward matrices."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Of the table of token embeddings: the largest parameter of small models."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of a reward model: embeddings, layers, norms and the head of one output."""
        layers = self.num_layers * (self.layer_parameters + self.norms_per_layer * self.hidden)
        return self.embedding_parameters + layers + 2 * self.hidden

    @property
    def kv_values(self) -> int:
        """Numbers that one token keeps in one layer's key-value cache."""
        return 2 * self.kv_heads * self.head_dim

    def first_layers(self, num_layers: int | None) -> ModelSize:
        """The model with its first layers only; None keeps all."""
        return replace(self, num_layers=min(num_layers or self.num_layers, self.num_layers))

    def matrix_parameters(self, num_layers: int | None = None) -> float:
        """Parameters that every token is multiplied with; embeddings are looked up and don't count."""
        return float(self.layer_parameters * self.first_layers(num_layers).num_layers)

    def kv_bytes(self, dtype: str) -> float:
        """Key-value memory of one token in bytes."""
        return self.kv_values * self.num_layers * _BYTES.get(dtype, _BYTES.get(self.dtype, 2))


def model_size(name: str, revision: str | None = None) -> ModelSize | None:
    """The size of a model; None where its config.json is not here or is of another kind.

    Args:
        name: a model folder, its URI, a `demo:` name or a hub id.
        revision: of a hub id, to look into the hub's cache for.
    """
    try:
        config = _configuration(name, revision)
        return None if config is None else _size(config.get("text_config", config))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a family that names its sizes otherwise: the plan then says that it does not know


def _configuration(name: str, revision: str | None) -> dict[str, Any] | None:
    if "://" in name:
        return stored_configuration(name)
    if name.startswith("demo:"):
        folder = {
            models.DEMO_MODEL: models.demo_model_dir(), models.MINIATURE_MODEL: models.miniature_model_dir()
        }.get(name)  # fmt: skip
    else:
        folder = Path(name).expanduser()
    if folder is not None and (folder / "config.json").is_file():
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    return json.loads(Path(cached).read_text(encoding="utf-8")) if isinstance(cached, str) else None


def _size(config: dict[str, Any]) -> ModelSize:
    if config.get("num_local_experts") or config.get("num_experts"):
        raise ValueError("a token goes through some experts only")
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return ModelSize(
        hidden=hidden,
        intermediate=int(config["intermediate_size"]),
        num_layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocabulary=int(config["vocab_size"]),
        norms_per_layer=4 if str(config.get("model_type", "")).startswith(("gemma2", "gemma3")) else 2,
        soft_capped=bool(config.get("attn_logit_softcapping")),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or ""),
    )
