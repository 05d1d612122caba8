"""How many rows an actor works on, and what the driver expects before there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.engines.vllm_settings import GPU_SEQS, DeviceFacts, derive_settings, model_facts
from music_ray.errors import InputError
from music_ray.jobs.job import Job
from music_ray.jobs.room import GUESSED_PLACES, expected_places, rows_at_once, rows_expected
from music_ray.memory.gpus import MIB
from music_ray.schema import ROLLOUT_SCHEMA

H100 = {"GPU": 8.0, "accelerator_type:H100": 1.0}
GEMMA = {"model": "google/gemma-2-9b-it", "gpus_per_engine": 1}
SMALL = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49_152, "tie_word_embeddings": True,
}  # fmt: skip
"""SmolLM2-135M: 46,080 bytes of keys and values a token in float32."""


def job_of(**values: Any) -> Job:
    return Job("test", "rows", "a:b", (), ROLLOUT_SCHEMA, 1, **values)


def config_of(engine: dict[str, Any], **generate: Any) -> RunConfig:
    # Its own sampling is no matter of these tests: a short one fits every max_model_len.
    short = {"sampling": {"max_tokens": 8}}
    roles = {"assistant": short, "user": short, "contrast": short}
    return resolve_config({"name": "t", "engine": engine, "generate": generate, **roles})


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A model folder with nothing but its sizes."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("max_model_len", "places", "rows"),
    # 23,301 tokens fit 1 GiB, so many of half max_model_len each, 8 to 64 of them.
    [(512, 64, 96), (1024, 45, 68), (2048, 22, 33), (16_384, 8, 32)],
)
def test_on_the_cpu_driver_and_actor_derive_what_the_engine_does(
    small: str, max_model_len: int, places: int, rows: int
) -> None:
    config = config_of({"model": small, "max_model_len": max_model_len})
    settings = derive_settings(config.engine, DeviceFacts("cpu"), model_facts(config.engine, small))
    assert settings.max_num_seqs == expected_places(config.engine, {}) == places
    assert rows_at_once(job_of(), config) == rows_expected(job_of(), config, {}) == rows


def test_a_known_gpu_gives_the_number_of_its_engine() -> None:
    config = config_of(GEMMA)
    # 0.9 · 81,559 MiB less 18.5 GB of weights, 344,064 bytes a token, 2,048 tokens each.
    assert expected_places(config.engine, H100) == 82
    assert rows_expected(job_of(), config, H100) == 123


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"GPU": 8.0},
        {"GPU": 8.0, "accelerator_type:H100": 1.0, "accelerator_type:P4": 1.0},
        {"GPU": 3.0, "accelerator_type:T4": 1.0},  # the pool may grow onto nodes that are not there yet
    ],
)
def test_gpus_that_nobody_knows_are_a_guess(resources: dict[str, float]) -> None:
    assert expected_places(config_of({**GEMMA, "max_engines": 4}).engine, resources) == GUESSED_PLACES


def test_of_several_kinds_the_largest_counts_so_that_none_runs_dry() -> None:
    both = H100 | {"accelerator_type:L40S": 1.0}
    assert expected_places(config_of(GEMMA).engine, both) == 82
    assert expected_places(config_of(GEMMA).engine, {"GPU": 1.0, "accelerator_type:L40S": 1.0}) == 35


def test_weights_that_do_not_fit_the_gpus_here_are_not_the_drivers_to_judge() -> None:
    config = config_of({"model": "google/gemma-2-27b-it", "gpus_per_engine": 1})
    assert expected_places(config.engine, {"GPU": 1.0, "accelerator_type:T4": 1.0}) == GUESSED_PLACES


def test_a_model_whose_size_nobody_knows_is_a_guess_here_and_a_mistake_there(tmp_path: Path) -> None:
    for gpus, places in ((0, 64), (1, GUESSED_PLACES)):
        config = config_of({"model": str(tmp_path), "gpus_per_engine": gpus})
        assert expected_places(config.engine, H100) == places
    with pytest.raises(InputError, match=r"^cannot tell the size of"):
        rows_at_once(job_of(), config_of({"model": str(tmp_path)}))


ENDPOINT = {"kind": "endpoint", "model": "m", "endpoint": {"base_url": "http://h/v1", "max_concurrency": 200}}


@pytest.mark.parametrize(
    ("engine", "generate", "job", "rows"),
    [
        ({**GEMMA, "max_num_seqs": 100}, {}, {}, 150),
        ({**GEMMA, "max_num_seqs": 100}, {}, {"places": 300}, 150),
        (GEMMA, {}, {"places": 300}, 450),
        (GEMMA, {"tasks_in_flight": 5, "conversations_per_task": 10}, {}, 50),
        (ENDPOINT, {}, {}, 300),
        ({"kind": "scripted"}, {}, {}, 96),
        ({"kind": "scripted", "gpus_per_engine": 1}, {}, {}, 768),
        ({"kind": "scripted", "max_num_seqs": 1}, {"conversations_per_task": 40}, {}, 80),
    ],
)
def test_what_is_given_is_not_derived(
    engine: dict[str, Any], generate: dict[str, Any], job: dict[str, Any], rows: int
) -> None:
    config = config_of(engine, **generate)
    assert rows_at_once(job_of(**job), config) == rows_expected(job_of(**job), config, H100) == rows


@given(st.sampled_from(sorted(MIB)), st.integers(64, 8192))
def test_the_guess_fills_an_engine_on_any_gpu(gpu: str, max_model_len: int) -> None:
    """Twice the rows of the guess may be in an actor: at least the rows of every number that is derived."""
    engine = config_of({"model": "google/gemma-2-2b-it", "gpus_per_engine": 1}).engine
    size = model_size_facts(engine)
    places = derive_settings(
        engine.model_copy(update={"max_model_len": max_model_len}), DeviceFacts("gpu", MIB[gpu] * 2**20), size
    ).max_num_seqs
    generate = config_of(GEMMA).generate
    assert places <= GPU_SEQS[1]
    assert generate.rows_in_flight(places) <= 2 * generate.rows_in_flight(GUESSED_PLACES)


def model_size_facts(engine: Any) -> Any:
    from music_ray.engines.vllm_settings import ModelFacts
    from music_ray.memory.model_size import model_size

    size = model_size(engine.model)
    assert size is not None
    return ModelFacts(size.num_layers, size.kv_heads, size.head_dim, size.parameters)
