"""The reward model that scores: a Hugging Face folder, checked and named before anything is started.

Reads configuration and weight headers without loading a model; importing it loads nothing heavy.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from music_ray.errors import InputError
from music_ray.model_folder import folder_digest
from music_ray.models import check_local_model, read_json, resolve_model

HEAD = "score.weight"
"""Name of the reward head's weights in transformers' sequence classifiers of decoders."""
_ARCHITECTURE = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class ScoringModel:
    """A reward model's folder, and what scoring must know of it."""

    folder: str
    """Absolute path."""
    architecture: str
    dtype: str
    """Number format of the weights, by torch's name; float32 where config.json has none."""
    max_positions: int | None
    """Longest conversation in tokens that it can read, where config.json says so."""
    digest: str
    """16 hexadecimal digits of the contents of all files that decide a score."""
    uri: str = ""
    """Where the folder was fetched from; other machines fetch it there as well. Empty of a local one."""
    long_beyond: int | None = None
    """LongRoPE (Phi-3): the length up to which positions are turned by the short factors."""

    @property
    def place(self) -> str:
        """What a worker on any machine takes: the folder, or its URI."""
        return self.uri or self.folder


def open_model(name: str) -> ScoringModel:
    """Checks a folder and computes its digest, which reads all of it (about a second a GiB).

    Args:
        name: a folder of this machine, or a URI, which is fetched.

    Raises:
        InputError: no model folder, no reward model, more than one label, or no weights of the head.
    """
    folder = Path(resolve_model(name))
    if not folder.is_dir():
        raise InputError(
            f"no model folder at {name}: name the folder of a trained reward model, e.g. runs/demo/model (a "
            "model of the hub is downloaded first)"
        )
    if (folder / "manifest.json").exists() and (folder / "model").is_dir():
        raise InputError(f"{name} is a run folder: name the model in it, {name.rstrip('/')}/model")
    check_local_model(str(folder))
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    return ScoringModel(
        folder=str(folder.absolute()),
        architecture=_architecture(config, name, folder),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32"),
        max_positions=text.get("max_position_embeddings"),
        digest=folder_digest(folder),
        uri=name if "://" in name else "",
        long_beyond=_long_beyond(text),
    )


def _long_beyond(text: dict[str, Any]) -> int | None:
    scaling = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) not in ("longrope", "su"):
        return None
    return scaling.get("original_max_position_embeddings") or text.get("original_max_position_embeddings")


def _architecture(config: dict[str, Any], name: str, folder: Path) -> str:
    found = [str(one) for one in config.get("architectures") or ()]
    if not any(one.endswith(_ARCHITECTURE) for one in found):
        raise InputError(
            f"{name} is no reward model: its config.json names {', '.join(found) or 'no architecture'}, "
            f"expected is one that ends in {_ARCHITECTURE}; train one with `music-ray train`"
        )
    labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    if labels != 1:
        raise InputError(
            f"{name} has {labels} labels, a reward model has 1: it classifies, and has no score to give"
        )
    if HEAD not in set(_weight_names(folder)):
        raise InputError(
            f"{name} has no weights of the reward head ({HEAD}): they would be drawn at random; name a "
            "folder that training has exported"
        )
    return next(one for one in found if one.endswith(_ARCHITECTURE))


def _weight_names(folder: Path) -> Iterator[str]:
    """Names of all tensors, from the headers alone."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as handle:
            try:
                (length,) = struct.unpack("<Q", handle.read(8))
                yield from json.loads(handle.read(length))
            except (struct.error, ValueError, MemoryError, OverflowError) as error:
                raise InputError(
                    f"{path} is no readable safetensors file ({error}): fetch it again"
                ) from None
