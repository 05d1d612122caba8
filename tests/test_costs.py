"""Amounts become money, and caps are passed exactly when they are passed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.costs import Spent, endpoint_cost, engine_of_role, exceeded, spent

ENDPOINT = {
    "base_url": "http://127.0.0.1:1/v1", "input_price_per_million": 2.0, "cached_price_per_million": 0.5,
    "output_price_per_million": 8.0,
}  # fmt: skip
AT_ENDPOINT = {"kind": "endpoint", "model": "m", "endpoint": ENDPOINT}
TOKENS = {"prompt": 1_000_000, "cached": 400_000, "completion": 100_000}
BILL = 0.6 * 2.0 + 0.4 * 0.5 + 0.1 * 8.0


def config_of(**sections) -> RunConfig:
    return resolve_config({"name": "r", "user": {"mode": "prompted"}, **sections})


def test_gpus_and_cpus_cost_their_hours() -> None:
    config = config_of(engine={"gpus_per_engine": 1}, costs={"gpu_hour": 2.5, "cpu_hour": 0.05})
    assert spent(7200, 36_000, TOKENS, config) == Spent(2.0, 10.0, 1_100_000, 5.5, "USD")


def test_what_has_no_price_is_named_and_not_taken_for_free() -> None:
    config = config_of(engine={"gpus_per_engine": 1}, costs={"cpu_hour": 0.1, "currency": "EUR"})
    assert spent(3600, 3600, {}, config) == Spent(1.0, 1.0, 0, 0.1, "EUR", ("costs.gpu_hour",))
    assert spent(3600, 3600, {}, config_of()).cost is None
    assert spent(0, 3600, TOKENS, config_of()) == Spent(0.0, 1.0, 1_100_000, None, "USD")


def test_tokens_of_an_endpoint_cost_its_prices() -> None:
    config = config_of(engine=AT_ENDPOINT)
    assert spent(0, 0, TOKENS, config).cost == pytest.approx(BILL)
    assert spent(0, 0, {"user": TOKENS, "assistant": TOKENS}, config).cost == pytest.approx(2 * BILL)


def test_the_judge_pays_at_its_own_endpoint() -> None:
    config = config_of(pairs={"judge": {"engine": AT_ENDPOINT}}, costs={"gpu_hour": 1.0})
    assert spent(3600, 0, {"assistant": TOKENS, "judge": TOKENS}, config).cost == pytest.approx(1.0 + BILL)
    assert engine_of_role(config, "judge") is config.pairs.judge.engine
    assert engine_of_role(config_of(), "judge").kind == "vllm"


def test_only_the_roles_at_an_endpoint_pay_there() -> None:
    config = config_of(user={"mode": "prompted", "engine": AT_ENDPOINT}, costs={"gpu_hour": 1.0})
    by_role = {"assistant": TOKENS, "user": TOKENS, "contrast": TOKENS}
    bill = spent(3600, 0, by_role, config)
    assert bill.cost == pytest.approx(1.0 + BILL)
    assert bill.tokens == 3_300_000
    assert endpoint_cost(config, "assistant", TOKENS) is None


@pytest.mark.parametrize(
    ("mode", "owner"), [("joint", "contrast"), ("resample", "user"), ("neighbour", "contrast")]
)
def test_who_answers_a_contrast_call(mode: str, owner: str) -> None:
    user, contrast = ({**AT_ENDPOINT, "model": name} for name in ("user", "contrast"))
    config = config_of(user={"mode": "prompted", "engine": user}, contrast={"mode": mode, "engine": contrast})
    assert engine_of_role(config, "contrast").model == owner
    assert engine_of_role(config, "user").model == "user"
    assert engine_of_role(config, "assistant") is config.engine


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        (
            {"cost": 50.01},
            "50.01 USD are spent, limits.max_cost is 50.00: raise it, and the same command goes on; nothing "
            "that is finished is lost",
        ),
        (
            {"gpu_hours": 12.5},
            "12.50 GPU hours are used, limits.max_gpu_hours is 10.00: raise it, and the same command goes "
            "on; nothing that is finished is lost",
        ),
        (
            {"tokens": 1_000_001},
            "1,000,001 tokens are used, limits.max_tokens is 1,000,000: raise it, and the same command goes "
            "on; nothing that is finished is lost",
        ),
    ],
)
def test_the_message_names_value_bound_and_remedy(amounts: dict, message: str) -> None:
    limits = config_of(
        limits={"max_cost": 50, "max_gpu_hours": 10, "max_tokens": 10**6}, costs={"cpu_hour": 1.0}
    ).limits
    at_the_bound = {"gpu_hours": 10.0, "cpu_hours": 0.0, "tokens": 10**6, "cost": 50.0, "currency": "USD"}
    assert exceeded(Spent(**at_the_bound), limits) == ""
    assert exceeded(Spent(**(at_the_bound | amounts)), limits) == message


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 10**12))
def test_without_caps_nothing_is_too_much(gpu_seconds: float, cpu_seconds: float, tokens: int) -> None:
    config = config_of(costs={"gpu_hour": 3.0})
    assert exceeded(spent(gpu_seconds, cpu_seconds, {"prompt": tokens}, config), config.limits) == ""
