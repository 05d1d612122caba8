"""The endpoint engine against a real HTTP server that misbehaves."""

import asyncio
import logging
import time
import traceback

import pytest

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.config.load import resolve_config
from music_ray.engines.base import (
    Completion,
    EndpointFailedError,
    Prompt,
    PromptTooLongError,
    RequestError,
    RoleEngines,
)
from music_ray.engines.endpoint import EndpointEngine
from music_ray.errors import InputError
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.schema import SeedContext
from tests.engines.conftest import KEY
from tests.engines.misbehaving import Behaviour, answering, cut, garbage, hang, page, refusing, well

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Go"},
]
SAMPLING = SamplingConfig(temperature=0.5, top_p=1.0, max_tokens=32)


def ask(engine: EndpointEngine, sampling: SamplingConfig = SAMPLING, seed: int = 7) -> Completion:
    return asyncio.run(engine.generate(Prompt(MESSAGES), sampling, seed))


# -- a request and its answer ----------------------------------------------------------------------


def test_what_is_sent_and_what_comes_back(server, make_endpoint) -> None:
    engine = make_endpoint(input_price_per_million=1.0, output_price_per_million=2.0)
    before = engine.accounts.spent
    assert ask(engine) == Completion(
        "Hello.", "stop", prompt_tokens=20, cached_tokens=16, completion_tokens=5
    )
    assert server.bodies == [
        {"model": "model", "messages": MESSAGES, "temperature": 0.5, "max_tokens": 32, "seed": 7}
    ]
    assert (server.paths, server.keys) == (["/v1/chat/completions"], [f"Bearer {KEY}"])
    assert engine.describe() == {
        "engine": f"endpoint {server.base_url.split('/')[2]}",
        "model": "model-2024-08-06",
        "model_revision": "fp_1",
    }
    accounts = engine.accounts
    # The first small request counts, too: it was paid for.
    assert (accounts.requests, accounts.retries) == (2, {})
    assert (accounts.prompt_tokens, accounts.cached_tokens, accounts.completion_tokens) == (40, 32, 10)
    assert accounts.spent - before == pytest.approx((20 * 1.0 + 5 * 2.0) / 1e6)


def test_what_is_not_asked_for_is_not_sent(server, make_endpoint) -> None:
    ask(make_endpoint(request_seeds=False), SamplingConfig(top_p=0.9, repetition_penalty=1.1))
    (body,) = server.bodies
    assert "seed" not in body
    assert (body["top_p"], body["repetition_penalty"]) == (0.9, 1.1)


def test_a_model_that_knows_only_max_completion_tokens(server, make_endpoint) -> None:
    server.script.append(
        refusing(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    )
    ask(make_endpoint())
    (body,) = server.bodies
    assert body["max_completion_tokens"] == 32 and "max_tokens" not in body


def test_several_event_loops_one_after_the_other(server, make_endpoint) -> None:
    engine = make_endpoint()
    assert [ask(engine).text for _ in range(3)] == ["Hello."] * 3


# -- what goes by ----------------------------------------------------------------------------------

PASSING: list[tuple[Behaviour, str]] = [
    (refusing(429), "rate_limited"),
    (refusing(500), "endpoint_unavailable"),
    (refusing(503), "endpoint_unavailable"),
    (refusing(529), "endpoint_unavailable"),
    (refusing(408), "endpoint_unavailable"),
    (hang, "endpoint_timeout"),
    (cut, "endpoint_unavailable"),
    (garbage, "endpoint_malformed"),
    (page, "endpoint_malformed"),
    (answering(choices=[]), "endpoint_malformed"),
    (answering(finish_reason="abort"), "endpoint_malformed"),
]
IDS = ["429", "500", "503", "529", "408", "hang", "cut", "garbage", "page", "no choice", "aborted"]


@pytest.mark.parametrize(("failure", "reason"), PASSING, ids=IDS)
def test_what_goes_by_is_asked_again(failure, reason, server, make_endpoint) -> None:
    engine = make_endpoint(timeout_seconds=3.0 if failure is hang else 30.0)
    server.script.extend([failure, failure])
    assert ask(engine).text == "Hello."
    assert (len(server.bodies), engine.accounts.retries) == (3, {reason: 2})
    assert server.bodies[0] == server.bodies[1] == server.bodies[2], "another seed would be another text"


@pytest.mark.parametrize(("failure", "reason"), PASSING, ids=IDS)
def test_what_does_not_go_by_has_a_reason_of_its_own(failure, reason, server, make_endpoint) -> None:
    engine = make_endpoint(timeout_seconds=3.0 if failure is hang else 30.0, max_attempts=2)
    server.script.extend([failure, failure, well])
    with pytest.raises(EndpointFailedError, match=r"\(2 attempts\)$") as caught:
        ask(engine)
    assert (caught.value.reason, len(server.bodies), len(server.script)) == (reason, 2, 1)
    assert engine.gate.running == 0


def test_a_server_that_is_gone(make_endpoint, server) -> None:
    engine = make_endpoint(max_attempts=2)
    object.__setattr__(engine.endpoint, "base_url", "http://127.0.0.1:9/v1")
    with pytest.raises(
        EndpointFailedError, match=r"no connection to http://127\.0\.0\.1:9/v1, or it broke"
    ) as caught:
        ask(engine)
    assert caught.value.reason == "endpoint_unavailable"


def test_retry_after_is_honoured_and_holds_the_others_up(server, make_endpoint) -> None:
    engine = make_endpoint()
    server.script.append(refusing(429, headers={"Retry-After": "1"}))

    async def two() -> tuple[float, float, float]:
        started = time.monotonic()
        first = asyncio.create_task(engine.generate(Prompt(MESSAGES), SAMPLING, 1))
        while not (left := engine.gate.limit.pause_seconds):
            await asyncio.sleep(0.01)
        asked = time.monotonic()
        await engine.generate(Prompt(MESSAGES), SAMPLING, 2)
        other = time.monotonic() - asked
        await first
        return time.monotonic() - started, other, left

    first, other, left = asyncio.run(two())
    assert 1.0 <= first < 4.0 and 0 < left <= 1.0 and left <= other < 4.0


def test_retry_after_as_a_date(server, make_endpoint) -> None:
    engine = make_endpoint()
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
    server.script.append(refusing(503, headers={"Retry-After": date}))
    started = time.monotonic()
    ask(engine)
    assert 0.9 <= time.monotonic() - started <= 6.0


# -- what does not go by ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 1024 tokens. However, you requested 5 output tokens and your "
        "prompt contains 2000 input tokens.",
        "prompt is too long: 213462 tokens > 200000 maximum",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
def test_a_conversation_that_is_too_long(message, server, make_endpoint) -> None:
    engine = make_endpoint()
    server.script.append(refusing(400, message))
    with pytest.raises(PromptTooLongError) as caught:
        ask(engine)
    assert str(caught.value) == f"400: {message}"


def test_the_code_says_that_it_is_too_long(server, make_endpoint) -> None:
    engine = make_endpoint()
    server.script.append(refusing(400, "no", code="context_length_exceeded"))
    with pytest.raises(PromptTooLongError):
        ask(engine)


@pytest.mark.parametrize(
    ("failure", "reason", "message"),
    [
        (refusing(400, "temperature is odd"), "request_refused", "400: temperature is odd"),
        (refusing(422, "odd"), "request_refused", "422: odd"),
        (refusing(400, "no", code="content_filter"), "content_filter", "400: no"),
        (
            answering(finish_reason="content_filter"), "content_filter",
            "the endpoint's content filter withheld the text",
        ),
        (
            answering(usage=None), "usage_missing",
            "the answer has no `usage` with prompt_tokens and completion_tokens: what it cost is not known",
        ),
    ],
)  # fmt: skip
def test_one_request_that_is_refused_is_not_repeated(failure, reason, message, server, make_endpoint) -> None:
    engine = make_endpoint()
    server.script.append(failure)
    with pytest.raises(RequestError) as caught:
        ask(engine)
    assert (caught.value.reason, str(caught.value), len(server.bodies)) == (reason, message, 1)
    assert ask(engine).text == "Hello."


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_the_run_and_is_never_shown(status, server, make_endpoint, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    engine = make_endpoint()
    server.script.append(refusing(status, f"Incorrect API key: {KEY}"))
    with pytest.raises(InputError) as caught:
        ask(engine)
    assert str(caught.value) == (
        f"{server.base_url} refuses the key in the environment variable TEST_KEY for model ({status}: "
        "Incorrect API key: ***): put a valid one there, or name another variable in endpoint.api_key_env"
    )
    shown = [repr(engine), repr(engine.config), str(engine.describe()), repr(engine.accounts), caplog.text]
    assert not any(KEY in text for text in [*shown, *traceback.format_exception(caught.value)])


def test_a_key_in_the_message_of_a_broken_connection(server, make_endpoint) -> None:
    engine = make_endpoint(max_attempts=1)
    server.script.append(refusing(500, f"you sent {KEY}"))
    with pytest.raises(EndpointFailedError) as caught:
        ask(engine)
    assert str(caught.value) == "500: you sent *** (1 attempts)"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            refusing(404, "no such model"),
            "has no model model, or is not where an API begins (404: no such model)",
        ),
        (
            refusing(429, "empty", code="insufficient_quota"),
            "wants money for the key in TEST_KEY (429: empty)",
        ),
        (refusing(402, "empty"), "wants money for the key in TEST_KEY (402: empty)"),
    ],
)
def test_what_only_the_user_can_mend(failure, message, server, make_endpoint) -> None:
    engine = make_endpoint()
    server.script.append(failure)
    with pytest.raises(InputError) as caught:
        ask(engine)
    assert message in str(caught.value)
    assert len(server.bodies) == 1


# -- the start -------------------------------------------------------------------------------------


def test_no_key_in_the_environment(server, monkeypatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    values = {"base_url": "https://api.example.org/v1", "api_key_env": "NO_SUCH_KEY"}
    config = EngineConfig(kind="endpoint", model="m", endpoint=values)
    message = (
        "the environment variable NO_SUCH_KEY is not set: put the key for https://api.example.org/v1 there, "
        "or name another variable in endpoint.api_key_env"
    )
    with pytest.raises(InputError) as caught:
        EndpointEngine(config)
    assert str(caught.value) == message
    monkeypatch.setenv("NO_SUCH_KEY", "  \n")
    with pytest.raises(InputError) as caught:
        EndpointEngine(config)
    assert str(caught.value) == message
    monkeypatch.setenv("NO_SUCH_KEY", "two words")
    with pytest.raises(InputError, match="NO_SUCH_KEY holds signs that no key has") as caught:
        EndpointEngine(config)
    assert "two words" not in str(caught.value)


def test_an_endpoint_on_this_machine_needs_no_key(server, make_endpoint, monkeypatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    ask(make_endpoint(api_key_env="NO_SUCH_KEY"))
    assert server.keys == ["Bearer no-key"]


def test_a_key_file_with_a_line_break(server, make_endpoint, monkeypatch) -> None:
    monkeypatch.setenv("BROKEN", f"{KEY}\n")
    ask(make_endpoint(api_key_env="BROKEN"))
    assert server.keys == [f"Bearer {KEY}"]


def test_what_is_wrong_with_an_endpoint_is_said_when_the_engine_starts(server, make_endpoint) -> None:
    server.script.extend([refusing(500, "down")] * 3)
    with pytest.raises(InputError) as caught:
        make_endpoint()
    assert str(caught.value) == (
        f"{server.base_url} did not answer a first small request to model: 500: down (3 attempts)\n"
        "start the server, or correct endpoint.base_url; the same command then goes on"
    )
    server.script.append(answering(usage=None))
    with pytest.raises(InputError, match="the answer has no `usage`"):
        make_endpoint()
    server.script.append(refusing(401))
    with pytest.raises(InputError, match="refuses the key in the environment variable TEST_KEY"):
        make_endpoint()


def test_an_engine_starts_where_an_event_loop_runs(server, make_endpoint) -> None:
    async def start() -> str:
        return (await make_endpoint().generate(Prompt(MESSAGES), SAMPLING, 1)).text

    assert asyncio.run(start()) == "Hello."


def test_an_endpoint_that_cannot_continue_a_template(server, make_endpoint) -> None:
    engine = make_endpoint()
    server.script.append(refusing(404, "This is a chat model"))
    with pytest.raises(InputError) as caught:
        engine.check_template_route()
    message = str(caught.value)
    assert message.startswith(
        f"{server.base_url} can't continue a bare chat template, which user.mode=template"
    )
    assert "(404: This is a chat model)" in message
    assert message.endswith("\nset user.mode=prompted, or serve the model with `vllm serve`")
    engine.check_template_route()
    assert server.bodies[-1]["prompt"] == [1, 2, 3] and server.paths[-1] == "/v1/completions"


# -- how many at once ------------------------------------------------------------------------------


def test_the_limit_settles_near_what_the_server_takes(server, make_endpoint) -> None:
    engine = make_endpoint(max_concurrency=64)
    engine.gate.limit.cooldown_seconds = 0.3  # round trips are short here
    server.capacity, server.latency_seconds = 5, 0.1
    limits = []

    async def one(number: int) -> str:
        completion = await engine.generate(Prompt(MESSAGES), SAMPLING, number)
        limits.append(engine.gate.limit.limit)
        return completion.text

    async def many() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(240)))

    assert asyncio.run(many()) == ["Hello."] * 240
    late = limits[120:]
    assert min(late) >= 2 and max(late) <= 9
    assert 3 <= sum(late) / len(late) <= 7
    assert server.most_running == 5
    assert engine.accounts.retries["rate_limited"] == server.refusals > 0
    assert server.refusals < 0.25 * 240, "a client that does not adapt meets far more"


def test_nothing_hidden_bounds_what_runs_at_once(server, make_endpoint) -> None:
    """The server answers nobody before 150 requests are in at once."""
    engine = make_endpoint(max_concurrency=150, timeout_seconds=60.0)
    server.together = 150
    limit = engine.gate.limit
    for _ in range(200):
        limit.answered(limit.clock(), limit.limit)

    async def many() -> list[Completion]:
        return await asyncio.gather(
            *(engine.generate(Prompt(MESSAGES), SAMPLING, number) for number in range(150))
        )

    assert len(asyncio.run(many())) == 150
    assert limit.limit == server.most_running == 150
    assert engine.accounts.retries == {}


# -- a row -----------------------------------------------------------------------------------------


def test_a_rollout_keeps_the_reason(server, make_endpoint) -> None:
    engine = make_endpoint(max_attempts=2)
    config = resolve_config(
        {"name": "t", "generate": {"turns": 1}, "contrast": {"mode": "neighbour", "schedule": "all"}}
    )
    pool = NeighbourPool(["How do I boil eggs?", "Why is the sky red?"], 0.8)
    cast = Cast.of(config, RoleEngines.same(engine), pool, run_epoch=1)
    seed = SeedContext(1, "test", "p", 1, [{"role": "user", "content": "How do I boil eggs?"}])
    server.script.extend([refusing(429)] * 4)
    row = asyncio.run(roll_out(seed, cast))
    assert (row.status, row.reason, row.detail) == ("error", "rate_limited", "429: no (2 attempts)")
    server.script.append(answering(finish_reason="content_filter"))
    assert asyncio.run(roll_out(seed, cast)).reason == "content_filter"
    row = asyncio.run(roll_out(seed, cast))
    assert (row.status, row.model, row.model_revision) == ("ok", "model-2024-08-06", "fp_1")
