"""vLLM for real, with the demo model: prompts, stops, seeds, limits, and many requests at once."""

import asyncio

import pytest

from music_ray.config import SamplingConfig
from music_ray.engines.base import Prompt, PromptTooLongError

pytestmark = pytest.mark.slow
GREEDY = SamplingConfig(temperature=0.0, max_tokens=24)


def ask(engine, text, sampling=GREEDY, seed=1, speaker="assistant"):
    messages = [{"role": "user", "content": text}]
    if speaker == "user":
        messages.append({"role": "assistant", "content": "Sure, here is how."})
    return asyncio.run(engine.generate(Prompt(messages, speaker), sampling, seed))


def test_it_answers_and_ends_its_turn(demo_engine):
    completion = ask(demo_engine, "What is the capital of France?")
    assert "Paris" in completion.text
    assert completion.finish_reason == "stop" and "<|im_end|>" not in completion.text
    ids = demo_engine.chat.reply_prompt_ids([{"role": "user", "content": "What is the capital of France?"}])
    assert completion.prompt_tokens == len(ids)


def test_a_reply_at_its_limit_says_so(demo_engine):
    completion = ask(demo_engine, "Tell a long story.", SamplingConfig(temperature=0.0, max_tokens=5))
    assert (completion.finish_reason, completion.completion_tokens) == ("length", 5)


def test_the_user_is_continued_after_the_user_header(demo_engine):
    sampling = SamplingConfig(temperature=0.0, max_tokens=40)
    completion = ask(demo_engine, "How do I braise pork belly?", sampling, speaker="user")
    assert completion.text.strip() and "<|im_start|>" not in completion.text


def test_the_same_seed_gives_the_same_text_among_other_requests(demo_engine):
    warm = SamplingConfig(temperature=1.0, max_tokens=20)

    async def many(seeds):
        prompt = Prompt([{"role": "user", "content": "Name a colour and an animal."}])
        return await asyncio.gather(*(demo_engine.generate(prompt, warm, seed) for seed in seeds))

    alone = asyncio.run(many([5]))[0].text
    together = [completion.text for completion in asyncio.run(many([4, 5, 6, 7]))]
    assert together[1] == alone
    assert len(set(together)) > 1


def test_a_shared_beginning_comes_from_the_cache(demo_engine):
    long = "Consider this list of words: " + " ".join(f"word{n}" for n in range(60))
    ask(demo_engine, long)
    assert ask(demo_engine, long).cached_tokens >= 64


def test_what_cannot_fit_is_refused_before_it_is_sent(demo_engine):
    with pytest.raises(PromptTooLongError, match=r"exceed engine.max_model_len \(512\)"):
        ask(demo_engine, "word " * 600)


def test_the_row_says_what_answered(demo_engine):
    described = demo_engine.describe()
    assert described["engine"].startswith("vllm ") and described["model"] == "demo:smollm2-135m-instruct"


def test_a_beginning_is_gone_on_from_and_part_of_the_text(demo_engine):
    question = "What is the capital of France?"
    whole = ask(demo_engine, question).text
    begin, rest = whole[: whole.index(" Paris")], whole[whole.index(" Paris") :]
    completion = ask(demo_engine, question, GREEDY.model_copy(update={"begin": begin}))
    assert (completion.text, begin + rest) == (whole, whole)
    assert completion.completion_tokens < ask(demo_engine, question).completion_tokens
