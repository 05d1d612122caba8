"""The training's memory: by hand, by what transformers' layers really keep, and as properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.config import LoraConfig, TrainConfig
from music_ray.memory.gpus import GIB
from music_ray.memory.model_size import ModelSize, model_size
from music_ray.memory.training import (
    CUDA_CONTEXT,
    activations,
    layer_bytes_per_token,
    num_trained,
    tokens_of_a_pass,
    training_memory,
)

SMALL = ModelSize(
    hidden=64, intermediate=192, num_layers=3, heads=4, kv_heads=2, head_dim=16, vocabulary=100
)  # fmt: skip


def gemma_9b() -> ModelSize:
    size = model_size("google/gemma-2-9b-it")
    assert size is not None
    return size


def test_zero_3_divides_the_states_by_the_workers() -> None:
    size, train = gemma_9b(), TrainConfig(use_gpu=True, precision="bfloat16")
    plan = training_memory(size, train, 8)
    assert plan.parameters == 2 * size.parameters / 8
    assert plan.gradients == 4 * size.parameters / 8
    assert plan.optimizer == 12 * size.parameters / 8
    assert (plan.process, plan.host) == (CUDA_CONTEXT, 0.0)


def test_the_paper_s_run_by_hand() -> None:
    """Gemma-2-9B in bfloat16 with recomputed layers on eight GPUs."""
    size = gemma_9b()
    train = TrainConfig(use_gpu=True, precision="bfloat16", activation_checkpointing=True)
    tokens = 4096
    # norms 2 · 10 h + 2 · 8 h; (3 · 16 + 2 · 8) · 256 numbers of attention and 4 · f of two bytes
    layer = 36 * 3584 + 2 * (64 * 256 + 4 * 14_336)
    kept = 42 * tokens * 2 * 3584 + tokens * layer + 4 * 2 * tokens * 14_336
    assert activations(size, train) == kept
    embeddings = 256_000 * 3584
    # At the end of the backward pass: the embeddings with what is fetched ahead, their gradient, float32.
    end = 2 * (embeddings + 50_000_000) + 2 * embeddings + 4 * embeddings
    plan = training_memory(size, train, 8)
    step = 8 * min(10**9, size.parameters / 8)
    assert plan.working == 4 * 500_000_000 + max(end, step) - kept
    assert plan.total / GIB == pytest.approx(30.2, abs=0.1)


def test_offload_moves_states_to_the_host_where_gradients_are_held_twice() -> None:
    size = gemma_9b()
    zero = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
    train = TrainConfig(use_gpu=True, precision="bfloat16", zero=zero)
    plan = training_memory(size, train, 4)
    assert (plan.parameters, plan.gradients, plan.optimizer) == (0, 0, 0)
    assert plan.host == (2 + 8 + 12) * size.parameters / 4 + 8 * 10**9
    on_cpus = training_memory(size, train.model_copy(update={"use_gpu": False}), 4)
    assert on_cpus.host == 0 and on_cpus.gradients == 2 * size.parameters  # all in the process


def test_one_worker_alone_gathers_nothing() -> None:
    train = TrainConfig(lora=LoraConfig(rank=1), use_gpu=True)
    one, two = (training_memory(SMALL, train, number) for number in (1, 2))
    assert two.working - one.working == 4 * SMALL.parameters


@pytest.mark.parametrize(
    ("train", "tokens"),
    [
        ({"micro_tokens": 4096, "max_tokens": 512}, 4096),
        ({"micro_tokens": 512, "max_tokens": 2048}, 4096),
        ({"packing": "padded", "micro_pairs": 3, "max_tokens": 100}, 600),
    ],
)
def test_tokens_of_the_longest_pass(train: dict[str, Any], tokens: int) -> None:
    assert tokens_of_a_pass(TrainConfig.model_validate(train)) == tokens


def test_adapters_are_counted_as_peft_makes_them(tmp_path: Any) -> None:
    from music_ray.reward.zero3 import add_adapters
    from music_ray.reward_model import load_reward_model
    from tests.reward.conftest import make_model

    folder = make_model(tmp_path / "gemma2", "gemma2")
    size = model_size(str(folder))
    model = load_reward_model(str(folder))
    lora = LoraConfig(rank=3)
    add_adapters(model, lora, 0)
    assert size is not None
    assert num_trained(size, lora) == sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert num_trained(size, lora.model_copy(update={"target_modules": ["other"]})) == size.hidden


# -- what layers keep ------------------------------------------------------------------------------

TOKENS = 128


@pytest.mark.parametrize("family", ["gemma2", "llama"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("packing", ["shared_prefix", "packed", "padded"])
def test_a_layer_keeps_what_is_counted(family: str, precision: str, packing: str) -> None:
    """Two sides of TOKENS tokens without a common start: every conversation is as long as it may be."""
    train = TrainConfig.model_validate({"precision": precision, "packing": packing, "max_tokens": TOKENS})
    size, (one, three) = _sizes_and_kept(family, train)
    found = (three - one) / 2 / (2 * TOKENS)
    counted = layer_bytes_per_token(size, train)
    if packing == "shared_prefix":  # nothing is shared here, so no keys are laid out with a prefix
        counted = layer_bytes_per_token(size, train.model_copy(update={"packing": "packed"}))
    assert found == pytest.approx(counted, rel=0.06)


def _sizes_and_kept(family: str, train: TrainConfig) -> tuple[ModelSize, list[int]]:
    """The model's size, and bytes kept for the backward pass by models of one and of three layers."""
    import torch

    from music_ray.memory.model_size import _size
    from music_ray.reward_model import RewardModel

    kept = []
    for layers in (1, 3):
        classifier = _classifier(family, layers, train)
        model = RewardModel(classifier).to(getattr(torch, train.precision))
        kept.append(_kept_bytes(model, train))
    return _size(classifier.config.to_dict()), kept


def _classifier(family: str, layers: int, train: TrainConfig) -> Any:
    from transformers import (
        Gemma2Config,
        Gemma2ForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
    )

    from music_ray.reward_model import attention_for

    sizes = {
        "vocab_size": 50, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_labels": 1,
        "pad_token_id": 0,
    }  # fmt: skip
    config: Any = Gemma2Config(**sizes) if family == "gemma2" else LlamaConfig(**sizes)
    config._attn_implementation = attention_for(config, train.pass_attention)
    made = Gemma2ForSequenceClassification if family == "gemma2" else LlamaForSequenceClassification
    return made(config).train()


def _kept_bytes(model: Any, train: TrainConfig) -> int:
    """Bytes of all storages that the forward pass of one pair saves, weights and buffers not counted."""
    import numpy as np
    import torch

    from music_ray.reward.packing import make_pack
    from music_ray.reward.passes import run_pack
    from music_ray.reward_model import pad_right

    sides = (np.arange(TOKENS) % 40 + 3, np.arange(TOKENS) % 41 + 4)
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    saved: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if train.packing == "padded":
            rewards = model(*pad_right(sides, 0))
        else:
            rewards = run_pack(model, make_pack([sides], share=train.packing == "shared_prefix"))
    assert rewards.shape == (2,)
    return sum(storage.nbytes() for storage in saved.values())


# -- properties ------------------------------------------------------------------------------------

SECTIONS = st.fixed_dictionaries(
    {
        "use_gpu": st.booleans(),
        "precision": st.sampled_from(["float32", "bfloat16"]),
        "packing": st.sampled_from(["shared_prefix", "packed", "padded"]),
        "micro_tokens": st.integers(16, 16_384),
        "micro_pairs": st.integers(1, 4),
        "max_tokens": st.integers(16, 4096),
        "activation_checkpointing": st.booleans(),
        "lora": st.none() | st.just({"rank": 8}),
    }
)
NAMES = st.sampled_from(["google/gemma-2-2b", "google/gemma-2-9b", "google/gemma-2-27b"])


@given(section=SECTIONS, name=NAMES, workers=st.integers(1, 64))
@settings(max_examples=100)
def test_savings_save(section: dict[str, Any], name: str, workers: int) -> None:
    size, train = model_size(name), TrainConfig.model_validate(section)
    assert size is not None
    plan = training_memory(size, train, workers)
    parts = (plan.parameters, plan.gradients, plan.optimizer, plan.activations, plan.working, plan.process)
    assert min(parts) >= 0 and plan.total == pytest.approx(sum(parts))

    def total(workers: int = workers, **changes: Any) -> float:
        return training_memory(size, train.model_copy(update=changes), workers).total

    assert total(workers=workers + 1) <= plan.total or workers == 1
    assert total(activation_checkpointing=True) <= plan.total
    assert total(micro_tokens=train.micro_tokens // 2) <= plan.total
    assert total(num_layers=2) <= plan.total
    assert plan.export == pytest.approx(2 * plan.parameters * workers)
