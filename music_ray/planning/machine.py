"""What a model's config.json says about its size: parameters that work on a token, and key-value memory.

Only folders on this machine are read; of a hub model nothing is known here, and nothing is guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from music_ray import models

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelSize:
    """A decoder model's size."""

    layer_parameters: float
    """Of one layer's attention and feed-forward matrices."""
    num_layers: int
    kv_values: int
    """Numbers that one token keeps in one layer's key-value cache."""
    dtype: str

    def matrix_parameters(self, num_layers: int | None = None) -> float:
        """Parameters that every token is multiplied with; embeddings are looked up and don't count."""
        return self.layer_parameters * min(num_layers or self.num_layers, self.num_layers)

    def kv_bytes(self, dtype: str) -> float:
        """Key-value memory of one token in bytes."""
        return self.kv_values * self.num_layers * _BYTES.get(dtype, _BYTES.get(self.dtype, 2))


def model_size(name: str) -> ModelSize | None:
    """The size of a model on this machine; None where its config.json is not here or is of another kind."""
    if name.startswith("demo:"):
        folder = models.demo_model_dir() if name == models.DEMO_MODEL else None
    else:
        folder = Path(name).expanduser()
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return _size(config.get("text_config", config))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a family that names its sizes otherwise: the plan then says that it does not know


def _size(config: dict[str, Any]) -> ModelSize:
    if config.get("num_local_experts") or config.get("num_experts"):
        raise ValueError("a token goes through some experts only")
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or hidden // heads)
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    feed_forward = 3 * hidden * int(config["intermediate_size"])
    return ModelSize(
        layer_parameters=float(attention + feed_forward),
        num_layers=int(config["num_hidden_layers"]),
        kv_values=2 * kv_heads * head,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or ""),
    )
