"""Prices and caps that can't be used together are refused before anything is started."""

from __future__ import annotations

import pytest

from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError
from music_ray.identity import identity_of, stage_keys


def config_of(*overrides: str):
    return resolve_config(apply_overrides({"name": "r"}, overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["limits.max_cost=10", "engine.gpus_per_engine=1"],
            "limits.max_cost (10) can't be watched without the price of a GPU: set costs.gpu_hour",
        ),
        (
            ["limits.max_cost=10"],
            "limits.max_cost (10) can't be watched without a price: set costs.cpu_hour",
        ),
    ],
)
def test_a_cap_on_money_needs_a_price(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["limits.max_cost=10", "engine.gpus_per_engine=1", "costs.gpu_hour=2"],
        ["limits.max_cost=10", "costs.cpu_hour=0.01"],
        [
            "limits.max_cost=10",
            "engine={kind: endpoint, model: m, endpoint: {base_url: 'http://127.0.0.1:1'}}",
        ],
        ["limits.max_gpu_hours=1", "limits.max_tokens=5"],
    ],
)
def test_caps_that_can_be_watched(overrides: list[str]) -> None:
    assert config_of(*overrides).limits.model_fields_set


@pytest.mark.parametrize("override", ["limits.max_cost=0", "costs.mfu=1.5", "costs.reply_fill=0"])
def test_values_out_of_bounds_are_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        config_of(override)


def test_prices_and_caps_may_change_at_any_time() -> None:
    plain, priced = config_of(), config_of("costs.gpu_hour=2", "limits.max_gpu_hours=5")
    assert identity_of(plain) == identity_of(priced)
    for stage in ("seeds", "generate", "pairs", "mix", "train", "evaluate", "report"):
        assert stage_keys(plain, stage) == stage_keys(priced, stage)
