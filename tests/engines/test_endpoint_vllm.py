"""The endpoint engine against a real `vllm serve` with the demo model on the CPU."""

import asyncio

import pytest

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.config.load import resolve_config
from music_ray.engines import make_engines
from music_ray.engines.base import Prompt, PromptTooLongError, RequestError
from music_ray.engines.endpoint import EndpointEngine
from music_ray.errors import InputError
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.models import DEMO_MODEL
from music_ray.schema import SeedContext, content_id, conversation_hash

pytestmark = [pytest.mark.slow, pytest.mark.faults]
QUESTION = "What is the capital of France?"
GREEDY = SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=24)


@pytest.fixture
def section(vllm_server, monkeypatch):
    """The engine section for the server."""
    base_url, model, key = vllm_server
    monkeypatch.setenv("VLLM_TEST_KEY", key)
    endpoint = {"base_url": base_url, "api_key_env": "VLLM_TEST_KEY", "tokenizer": DEMO_MODEL}
    return {"kind": "endpoint", "model": model, "endpoint": endpoint}


@pytest.fixture
def engine(section):
    one = EndpointEngine(EngineConfig(**section))
    yield one
    one.close()


def ask(engine, text, sampling=GREEDY, seed=1):
    return asyncio.run(engine.generate(Prompt([{"role": "user", "content": text}]), sampling, seed))


def test_it_answers_with_its_accounts(engine):
    completion = ask(engine, QUESTION)
    assert "Paris" in completion.text and completion.finish_reason == "stop"
    assert completion.prompt_tokens > 10 and completion.completion_tokens > 3
    assert engine.describe()["model"] == "smollm2"


def test_greedy_text_is_that_of_the_local_engine(engine, demo_engine):
    for text in (QUESTION, "Name three fruits."):
        local, remote = ask(demo_engine, text), ask(engine, text)
        assert remote.text == local.text
        assert (remote.prompt_tokens, remote.finish_reason) == (local.prompt_tokens, local.finish_reason)


def test_the_user_is_continued_as_by_the_local_engine(engine, demo_engine):
    engine.prepare_template()
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "It is Paris."}]
    prompt = Prompt(messages, "user")
    local = asyncio.run(demo_engine.generate(prompt, GREEDY, 1))
    remote = asyncio.run(engine.generate(prompt, GREEDY, 1))
    assert (remote.text, remote.prompt_tokens) == (local.text, local.prompt_tokens)
    assert remote.text.strip()


def test_a_seed_of_ones_own_and_a_cached_prefix(engine):
    warm = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=16)
    long = "Consider this list of words: " + " ".join(f"word{number}" for number in range(60))
    first, again, other = (ask(engine, long, warm, seed) for seed in (3, 3, 4))
    assert first.text == again.text != other.text
    assert again.cached_tokens >= 64


def test_repetition_penalty_reaches_the_server(engine):
    text = "Repeat the word fish."
    plain = ask(engine, text, GREEDY)
    hard = ask(engine, text, GREEDY.model_copy(update={"repetition_penalty": 2.0}))
    assert plain.text != hard.text


def test_what_the_server_refuses(engine, section, monkeypatch):
    with pytest.raises(PromptTooLongError, match="maximum context length is 1024 tokens"):
        ask(engine, "word " * 2000)
    with pytest.raises(RequestError) as caught:
        ask(engine, QUESTION, SamplingConfig.model_construct(temperature=-1.0, top_p=1.0, max_tokens=4))
    assert caught.value.reason == "request_refused" and "temperature" in str(caught.value)
    with pytest.raises(InputError, match="has no model gpt-5"):
        EndpointEngine(EngineConfig(**section | {"model": "gpt-5"}))
    monkeypatch.setenv("VLLM_TEST_KEY", "wrong")
    with pytest.raises(InputError, match="refuses the key in the environment variable VLLM_TEST_KEY"):
        EndpointEngine(EngineConfig(**section))


def test_whole_rollouts(section):
    questions = ["How long should I boil eggs for a firm yolk?", "Name three things to pack for a weekend."]
    config = resolve_config(
        {
            "name": "t",
            "engine": section,
            "generate": {"turns": 2},
            "user": {"mode": "template", "sampling": {"max_tokens": 24}},
            "assistant": {"sampling": {"max_tokens": 32, "temperature": 0.5}},
            "contrast": {"mode": "neighbour", "schedule": "all"},
        }
    )
    engines = make_engines(config)
    assert engines.assistant is engines.user is engines.contrast
    cast = Cast.of(config, engines, NeighbourPool(questions, 0.8), run_epoch=1)

    async def all_of_them():
        contexts = [[{"role": "user", "content": question}] for question in questions]
        seeds = [
            SeedContext(content_id(context), "test", "p", conversation_hash(context), context)
            for context in contexts
        ]
        return await asyncio.gather(*(roll_out(seed, cast) for seed in seeds))

    rows = asyncio.run(all_of_them())
    engines.assistant.close()
    for row in rows:
        assert (row.status, row.model) == ("ok", "smollm2"), row.detail
        assert len(row.chosen) == len(row.rejected) and row.chosen[1] != row.rejected[1]
        assert row.engine == f"endpoint {section['endpoint']['base_url'].split('/')[2]}"
        user_calls = [call for call in row.calls if call.role == "user"]
        assert user_calls and all(call.prompt_tokens > 10 for call in user_calls)
