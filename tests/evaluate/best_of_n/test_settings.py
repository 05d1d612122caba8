"""Folders, pools and devices."""

from pathlib import Path

import pytest

from music_ray.config import LimitsConfig
from music_ray.config.load import resolve_config
from music_ray.errors import ConfigError
from music_ray.evaluate.best_of_n.settings import (
    check_device,
    check_limits,
    placed,
    pool_config,
    scorer_words,
)

ENDPOINT = {"kind": "endpoint", "model": "m", "endpoint": {"base_url": "http://x/v1"}, "max_engines": 3}


def config_of(engine=None, generate=None, **section):
    values = {"name": "t", "engine": engine or {}, "generate": generate or {}, "best_of_n": section}
    return resolve_config(values)


@pytest.mark.parametrize(
    ("out", "folder"),
    [("here/there/", "here/there"), ("s3://b/x/y?region=z", "s3://b/x/y"), ("x/../y", "y")],
)
def test_where_results_lie(out: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = placed(config_of(), out)
    base, _, options = config.runs_dir.partition("?")
    assert f"{base}/{config.name}".removeprefix(f"{tmp_path}/") == folder
    assert options == ("region=z" if out.startswith("s3") else "")


def test_as_many_prompts_at_once_as_fill_the_engine() -> None:
    small = placed(config_of({"max_num_seqs": 64}), "out").generate
    assert (small.conversations_per_task, small.tasks_in_flight) == (2, 6), "6 × 2 prompts × 8 candidates"
    assert placed(config_of({"max_num_seqs": 64}, n=[2]), "out").generate.tasks_in_flight == 24
    given = config_of(generate={"conversations_per_task": 5})
    assert placed(given, "out").generate == given.generate


def test_no_engine_is_started_to_contrast() -> None:
    values = {"name": "t", "contrast": {"engine": ENDPOINT}}
    assert placed(resolve_config(values), "out").contrast.engine is None


def test_reward_models_on_a_gpu_need_room_that_is_stated() -> None:
    check_device(config_of())
    check_device(config_of(ENDPOINT, scorer_device="gpu"))
    with pytest.raises(ConfigError, match=r"scorer_device is gpu, but engine.gpus_per_engine is 0"):
        check_device(config_of(scorer_device="gpu"))
    with pytest.raises(ConfigError, match=r"of which the engine takes 90% unless it is told otherwise: set"):
        check_device(config_of({"gpus_per_engine": 1}, scorer_device="gpu"))
    check_device(config_of({"gpus_per_engine": 1, "gpu_memory_utilization": 0.6}, scorer_device="gpu"))


def test_beside_an_endpoint_an_actor_asks_for_a_gpu_of_its_own() -> None:
    alone = config_of(ENDPOINT)
    assert pool_config(alone) is alone
    labels = {"music-ray/group": "generation"}
    config = config_of({**ENDPOINT, "node_labels": labels}, scorer_device="gpu")
    pool = pool_config(config).engine
    assert pool.node_labels == labels
    assert (pool.gpus_per_engine, pool.max_engines, pool.kind) == (1, 3, "scripted")
    text = pool_config(config).model_dump_json()
    assert type(alone).model_validate_json(text).engine == pool, "it can travel"


def test_what_scorers_are_told() -> None:
    words = scorer_words(config_of({"max_engines": 2}, scorer_max_len=512, scorer_dtype="bfloat16"))
    assert words == [
        "score.engine=huggingface", "score.batch_size=8", "engine.dtype=bfloat16",
        "engine.gpus_per_engine=0", "engine.max_engines=2", "engine.max_model_len=512",
    ]  # fmt: skip


def test_a_cap_that_nobody_would_watch_is_refused() -> None:
    check_limits(config_of())
    capped = config_of().model_copy(update={"limits": LimitsConfig(max_cost=50)})
    message = r"limits.max_cost \(50\) is not watched by best-of-n: set limits.max_cost=null for none"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check_limits(capped)
