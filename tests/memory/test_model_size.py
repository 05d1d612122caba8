"""Sizes from configurations, against published numbers and real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from music_ray.memory.model_size import model_size
from tests.planning.test_training import LAYER, LLAMA


@pytest.mark.parametrize(
    ("name", "embeddings", "others"),
    [
        # arXiv 2408.00118, table 2; it counts 256,128 tokens, the model's configuration 256,000.
        ("google/gemma-2-2b-it", 590_118_912, 2_024_517_888),
        ("google/gemma-2-9b-it", 917_962_752, 8_324_201_984),
        ("google/gemma-2-27b", 1_180_237_824, 26_047_480_320),
    ],
)
def test_the_published_models_have_the_published_sizes(name: str, embeddings: int, others: int) -> None:
    size = model_size(name)
    assert size is not None and size.soft_capped
    assert size.embedding_parameters == embeddings - 128 * size.hidden
    assert size.parameters == size.embedding_parameters + others + size.hidden  # and the reward head


@pytest.mark.parametrize("family", ["gemma2", "llama"])
@pytest.mark.parametrize("layers", [1, None])
def test_parameters_are_those_of_the_loaded_model(family: str, layers: int | None, tmp_path: Path) -> None:
    from music_ray.reward_model import load_reward_model
    from tests.reward.conftest import make_model

    folder = make_model(tmp_path / family, family)
    size = model_size(str(folder))
    assert size is not None
    model = load_reward_model(str(folder), num_layers=layers)
    assert size.first_layers(layers).parameters == sum(one.numel() for one in model.parameters())
    assert size.soft_capped == (family == "gemma2")


def test_matrices_and_key_value_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": LLAMA, "vision_config": {}}))
    size = model_size(str(tmp_path))
    assert size is not None
    assert (size.matrix_parameters(), size.matrix_parameters(2)) == (3 * LAYER, 2 * LAYER)
    assert (size.kv_bytes(""), size.kv_bytes("float32")) == (2 * 2 * 16 * 3 * 2, 2 * 2 * 16 * 3 * 4)


@pytest.mark.parametrize("config", ['{"d_model": 12}', "{", json.dumps(LLAMA | {"num_local_experts": 8})])
def test_what_is_not_understood_has_no_size(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert model_size(str(tmp_path)) is None


def test_a_hub_model_is_found_in_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_size("some/hub-model") is None
    assert model_size("./none") is None
    import huggingface_hub

    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    cached = {("some/hub-model", "config.json", "abc"): str(tmp_path / "config.json")}
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda name, file, revision: cached.get((name, file, revision)),
    )
    assert model_size("some/hub-model", "abc") is not None
    assert model_size("some/hub-model", "def") is None
