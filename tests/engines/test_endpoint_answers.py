"""What bodies, headers and statuses mean."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.config import EndpointConfig
from music_ray.engines.base import Completion, EndpointFailedError
from music_ray.engines.endpoint_answers import RetryableError, read_answer, retry_after
from music_ray.engines.prices import cost
from tests.engines.misbehaving import completion

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
NOW = 1_792_000_000.0  # Wed, 14 Oct 2026 17:46:40 GMT


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_an_answer_with_its_accounts(path: str) -> None:
    answer = read_answer(completion(path, "Hi."))
    assert answer.completion == Completion(
        "Hi.", "stop", prompt_tokens=20, cached_tokens=16, completion_tokens=5
    )
    assert (answer.model, answer.fingerprint) == ("model-2024-08-06", "fp_1")


def test_what_an_endpoint_may_leave_out() -> None:
    body = completion(CHAT, message={"role": "assistant", "content": None}, finish_reason="length")
    body |= {"model": None, "system_fingerprint": None, "usage": {"prompt_tokens": 3, "completion_tokens": 0}}
    answer = read_answer(body)
    assert answer.completion == Completion(
        "", "length", prompt_tokens=3, cached_tokens=0, completion_tokens=0
    )
    assert (answer.model, answer.fingerprint) == ("", "")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        5,
        {"prompt_tokens": 3},
        {"completion_tokens": 3},
        {"prompt_tokens": None, "completion_tokens": 1},
    ],
)
def test_an_answer_that_does_not_say_what_it_cost(usage: object) -> None:
    with pytest.raises(EndpointFailedError, match="what it cost is not known") as caught:
        read_answer(completion(CHAT) | {"usage": usage})
    assert caught.value.reason == "usage_missing" and not isinstance(caught.value, RetryableError)


@pytest.mark.parametrize(
    "body",
    [
        None, [], "text", 5, {}, {"choices": []}, {"choices": None}, {"choices": [{"message": None}]},
        {"error": {"message": "upstream is down"}}, completion(CHAT, message={"content": 5}),
        completion(CHAT, finish_reason="tool_calls"), completion(CHAT, finish_reason=None),
        completion(CHAT) | {"model": 5},
    ],
)  # fmt: skip
def test_a_body_that_is_no_completion(body: object) -> None:
    with pytest.raises(RetryableError) as caught:
        read_answer(body)
    assert caught.value.reason == "endpoint_malformed"


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
names = st.sampled_from(["choices", "message", "content", "text", "usage", "model", "finish_reason"])


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(leaves, lambda one: st.dictionaries(names, one) | st.lists(one, max_size=2), max_leaves=8)
)
def test_no_json_whatever_breaks_the_reader(body: object) -> None:
    with pytest.raises(EndpointFailedError):
        read_answer(body)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0), ("0", 0.0), ("7", 7.0), (" 1.5 ", 1.5), ("999999", 3600.0),
        ("Wed, 14 Oct 2026 17:47:10 GMT", 30.0), ("Wed, 14 Oct 2026 17:46:10 GMT", 0.0),
        ("-3", 0.0), ("soon", 0.0), ("", 0.0), ("nan", 0.0),
    ],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


def test_cost_counts_cached_tokens_at_their_own_price() -> None:
    took = Completion("x", "stop", prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=200_000)
    prices = {"base_url": "http://h/v1", "input_price_per_million": 2.5, "output_price_per_million": 10.0}
    assert cost(took, EndpointConfig(**prices)) == pytest.approx(2.5 + 2.0)
    assert cost(took, EndpointConfig(**prices, cached_price_per_million=1.25)) == pytest.approx(
        1.5 + 0.5 + 2.0
    )
    assert cost(took, EndpointConfig(**prices, cached_price_per_million=0.0)) == pytest.approx(1.5 + 2.0)
    assert cost(took, EndpointConfig(base_url="http://h/v1")) == 0.0
