"""Which folders are reward models, and what names their contents."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from music_ray.errors import InputError
from music_ray.score.model import open_model

CONFIG = {
    "architectures": ["Gemma2ForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
    "dtype": "bfloat16",
    "max_position_embeddings": 8192,
}


def make(folder: Path, config: object = CONFIG, weights: tuple[str, ...] = ("score.weight", "a")) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    save_file({name: np.ones(3, dtype=np.float32) for name in weights}, folder / "model.safetensors")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def refusal(name: object) -> str:
    with pytest.raises(InputError) as caught:
        open_model(str(name))
    return str(caught.value).replace(str(name), "MODEL")


def test_a_reward_model_is_described_by_its_files(tmp_path: Path) -> None:
    model = open_model(str(make(tmp_path / "m")))
    assert model.architecture == "Gemma2ForSequenceClassification"
    assert (model.dtype, model.max_positions) == ("bfloat16", 8192)
    assert model.folder == str(tmp_path / "m") and len(model.digest) == 16
    nested = make(tmp_path / "n", CONFIG | {"text_config": {"max_position_embeddings": 77}, "dtype": None})
    assert (open_model(str(nested)).max_positions, open_model(str(nested)).dtype) == (77, "float32")


def test_the_digest_is_of_what_decides_a_score(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    before = open_model(str(folder)).digest
    (folder / "README.md").write_text("a card")
    assert open_model(str(folder)).digest == before == open_model(str(make(tmp_path / "same"))).digest
    (folder / "chat_template.jinja").write_text("{{ messages }}!")
    assert open_model(str(folder)).digest != before
    other = make(tmp_path / "other")
    save_file({"score.weight": np.zeros(3, dtype=np.float32)}, other / "model.safetensors")
    assert open_model(str(other)).digest != before


def test_positions_with_short_and_long_factors(tmp_path: Path) -> None:
    """Phi-3's configuration, as it was once and as transformers writes it now."""
    assert open_model(str(make(tmp_path / "m"))).long_beyond is None
    scaling = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    before = CONFIG | {"original_max_position_embeddings": 4096, "rope_scaling": scaling}
    assert open_model(str(make(tmp_path / "before", before))).long_beyond == 4096
    now = {"rope_type": "longrope", "original_max_position_embeddings": 8192}
    assert open_model(str(make(tmp_path / "now", CONFIG | {"rope_parameters": now}))).long_beyond == 8192
    plain = CONFIG | {"rope_parameters": {"rope_type": "default"}}
    assert open_model(str(make(tmp_path / "plain", plain))).long_beyond is None


def test_what_is_no_reward_model(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        "no model folder at MODEL: name the folder of a trained reward model, e.g. runs/demo/model (a model "
        "of the hub is downloaded first)"
    )
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").touch()
    assert refusal(tmp_path / "run") == "MODEL is a run folder: name the model in it, MODEL/model"
    generates = make(tmp_path / "g", CONFIG | {"architectures": ["Gemma2ForCausalLM"]})
    assert refusal(generates) == (
        "MODEL is no reward model: its config.json names Gemma2ForCausalLM, expected is one that ends in "
        "ForSequenceClassification; train one with `music-ray train`"
    )
    assert "config.json names no architecture" in refusal(make(tmp_path / "e", {}))
    three = make(tmp_path / "l", CONFIG | {"id2label": {"0": "a", "1": "b", "2": "c"}})
    assert refusal(three) == (
        "MODEL has 3 labels, a reward model has 1: it classifies, and has no score to give"
    )
    # transformers' own default, which it does not write down
    assert " has 2 labels" in refusal(make(tmp_path / "d", CONFIG | {"id2label": None}))
    headless = make(tmp_path / "h", weights=("a", "b"))
    assert refusal(headless) == (
        "MODEL has no weights of the reward head (score.weight): they would be drawn at random; name a "
        "folder that training has exported"
    )


def test_damaged_files_are_named(tmp_path: Path) -> None:
    assert "config.json is damaged (" in refusal(make(tmp_path / "a", "{"))
    assert "config.json is damaged (no JSON object)" in refusal(make(tmp_path / "b", "[1]"))
    short = make(tmp_path / "c")
    (short / "model.safetensors").write_bytes(b"abc")
    assert "model.safetensors is no readable safetensors file (" in refusal(short)
    huge = make(tmp_path / "d")
    (huge / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "model.safetensors is no readable safetensors file (" in refusal(huge)
