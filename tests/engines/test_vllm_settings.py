"""Derived settings, against numbers worked out by hand."""

import pytest

from music_ray.config import EngineConfig
from music_ray.engines.vllm_settings import (
    DeviceFacts,
    ModelFacts,
    derive_settings,
    engine_arguments,
    model_facts,
)
from music_ray.errors import InputError
from music_ray.models import DEMO_MODEL, is_ready, resolve_model

CPU = DeviceFacts("cpu")
GPU_80 = DeviceFacts("gpu", 80 * 10**9)
GEMMA_9B = ModelFacts(num_layers=42, num_kv_heads=8, head_dim=256, num_parameters=9_241_000_000)
DEMO = ModelFacts(num_layers=30, num_kv_heads=3, head_dim=64, num_parameters=134_500_000)


def test_gemma_2_9b_on_one_gpu_of_80_gb() -> None:
    settings = derive_settings(EngineConfig(gpus_per_engine=1), GPU_80, GEMMA_9B)
    # 2 · 42 · 8 · 256 · 2 bytes a token; 0.9 · 80 GB less 2 · 9.241 G bytes of weights.
    assert settings.kv_bytes_per_token == 344_064
    assert settings.kv_tokens == (72_000_000_000 - 18_482_000_000) // 344_064 == 155_546
    assert settings.max_num_seqs == 75  # 155,546 / 2,048
    assert settings.max_num_batched_tokens == 16_384
    assert settings.arrangement == "subprocess" and settings.derived == (
        "max_num_seqs",
        "max_num_batched_tokens",
    )


def test_two_gpus_hold_half_the_heads_and_half_the_weights_each() -> None:
    config = EngineConfig(gpus_per_engine=2, tensor_parallel_size=2)
    settings = derive_settings(config, GPU_80, GEMMA_9B)
    assert settings.kv_bytes_per_token == 172_032
    assert settings.kv_tokens == (72_000_000_000 - 9_241_000_000) // 172_032 == 364_810
    assert settings.max_num_seqs == 178


def test_the_demo_model_on_the_cpu() -> None:
    settings = derive_settings(EngineConfig(max_model_len=1024), CPU, DEMO)
    # 2 · 30 · 3 · 64 · 4 bytes a token in 1 GiB.
    assert settings.kv_bytes_per_token == 46_080
    assert settings.kv_tokens == 2**30 // 46_080 == 23_301
    assert settings.max_num_seqs == 45  # 23,301 / 512
    assert settings.max_num_batched_tokens == 2048
    assert (settings.arrangement, settings.dtype) == ("in_process", "float32")
    assert settings.line() == (
        "in_process, float32, max_num_seqs 45 (derived), max_num_batched_tokens 2,048 (derived), room for "
        "23,301 tokens"
    )


@pytest.mark.parametrize(
    ("config", "device", "model", "expected"),
    [
        (EngineConfig(max_model_len=8192), CPU, DEMO, 8),
        (EngineConfig(max_model_len=512), CPU, DEMO, 64),
        (EngineConfig(gpus_per_engine=1, max_model_len=65536), GPU_80, GEMMA_9B, 16),
        (EngineConfig(gpus_per_engine=1, max_model_len=256), GPU_80, GEMMA_9B, 1024),
        (EngineConfig(gpus_per_engine=1, max_num_seqs=2000), GPU_80, GEMMA_9B, 2000),
        (EngineConfig(max_num_seqs=1), CPU, DEMO, 1),
    ],
)
def test_bounds_hold_for_what_is_derived_and_not_for_what_is_set(config, device, model, expected) -> None:
    assert derive_settings(config, device, model).max_num_seqs == expected


def test_a_step_holds_a_token_of_every_request() -> None:
    settings = derive_settings(EngineConfig(max_num_seqs=4000, max_model_len=512), CPU, DEMO)
    assert settings.max_num_batched_tokens == 4000


def test_the_arrangement_can_be_chosen() -> None:
    assert derive_settings(EngineConfig(arrangement="subprocess"), CPU, DEMO).arrangement == "subprocess"
    config = EngineConfig(arrangement="in_process", gpus_per_engine=1)
    assert derive_settings(config, GPU_80, GEMMA_9B).arrangement == "in_process"


def test_weights_that_do_not_fit_are_refused_with_the_numbers() -> None:
    with pytest.raises(InputError) as caught:
        derive_settings(EngineConfig(gpus_per_engine=1), DeviceFacts("gpu", 16 * 2**30), GEMMA_9B)
    assert str(caught.value) == (
        "the weights of google/gemma-2-9b-it take 17.2 GiB on each of 1 GPU(s), "
        "engine.gpu_memory_utilization (0.9) leaves 14.4 GiB of its 16.0: raise engine.tensor_parallel_size "
        "and engine.gpus_per_engine, or use a smaller model or larger GPUs"
    )


def test_parameters_are_counted_from_shapes() -> None:
    from transformers import Gemma2Config

    shape = Gemma2Config(
        vocab_size=256_000, hidden_size=3584, intermediate_size=14_336, num_hidden_layers=42,
        num_attention_heads=16, num_key_value_heads=8, head_dim=256,
    )  # fmt: skip
    facts = ModelFacts.of(shape)
    # The published model has 9,241,705,984 parameters, norms included.
    assert facts.num_parameters == pytest.approx(9_241_705_984, rel=1e-3)
    assert (facts.num_layers, facts.num_kv_heads, facts.head_dim) == (42, 8, 256)


def test_experts_count_all() -> None:
    from transformers import MixtralConfig

    one = ModelFacts.of(MixtralConfig(num_local_experts=1, num_hidden_layers=2)).num_parameters
    eight = ModelFacts.of(MixtralConfig(num_local_experts=8, num_hidden_layers=2)).num_parameters
    assert eight - one == 7 * 2 * 3 * 4096 * 14_336


@pytest.mark.skipif(not is_ready(DEMO_MODEL), reason="the demo model is not prepared")
def test_the_demo_folder_has_the_sizes_used_above() -> None:
    facts = model_facts(EngineConfig(model=DEMO_MODEL), resolve_model(DEMO_MODEL))
    assert (facts.num_layers, facts.num_kv_heads, facts.head_dim) == (30, 3, 64)
    assert facts.num_parameters == pytest.approx(134_515_008, rel=1e-3)


def test_a_folder_without_a_model_is_a_user_mistake(tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot tell the size of here from its config\.json"):
        model_facts(EngineConfig(model="here"), str(tmp_path))


def test_vllm_gets_everything_explicitly() -> None:
    config = EngineConfig(max_model_len=512, tensor_parallel_size=2, kv_cache_gib=0.5)
    arguments = engine_arguments(config, "folder", derive_settings(config, CPU, DEMO))
    assert {"max_num_seqs", "max_num_batched_tokens", "dtype"} <= set(arguments)
    assert arguments["distributed_executor_backend"] == "mp"
    assert arguments["kv_cache_memory_bytes"] == 2**29 and arguments["enable_chunked_prefill"] is False
    config = EngineConfig(gpus_per_engine=1)
    arguments = engine_arguments(config, "folder", derive_settings(config, GPU_80, GEMMA_9B))
    assert arguments["gpu_memory_utilization"] == 0.9
    assert not {"kv_cache_memory_bytes", "distributed_executor_backend", "enable_chunked_prefill"} & set(
        arguments
    )
