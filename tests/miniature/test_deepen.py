"""The language model with more layers on top."""

from pathlib import Path

import pytest

from music_ray.miniature.deepen import GAIN, deepen
from music_ray.models import miniature_model_dir


@pytest.fixture(scope="module")
def deeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deepened") / "base"
    deepen(str(miniature_model_dir()), out, 2)
    return out


def load(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_the_layers_below_are_the_language_models_and_those_above_add_little(deeper: Path) -> None:
    import torch

    before, after = load(miniature_model_dir()), load(deeper)
    assert len(before.model.layers) == 4 and len(after.model.layers) == 6
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name
    ids = torch.arange(10, 130).reshape(4, 30)
    with torch.no_grad():
        said = [model(ids).logits.log_softmax(-1) for model in (before, after)]
    assert 0.0 < (said[0].exp() * (said[0] - said[1])).sum(-1).mean().item() < 0.05  # nats a token
    gains = after.model.layers[4].post_attention_layernorm.weight + 1
    assert gains.tolist() == pytest.approx([GAIN] * len(gains))


def test_a_seed_decides_the_new_layers(deeper: Path, tmp_path: Path) -> None:
    weights = "model.safetensors"
    for seed in (0, 1):
        deepen(str(miniature_model_dir()), tmp_path / str(seed), 2, seed=seed)
    assert (tmp_path / "0" / weights).read_bytes() == (deeper / weights).read_bytes()
    assert (tmp_path / "1" / weights).read_bytes() != (deeper / weights).read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["0", "1"]
