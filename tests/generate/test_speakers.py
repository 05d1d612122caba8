"""Speakers of conversations that grow as trees: the same history hears the same."""

import asyncio
from collections import Counter

import pytest

from music_ray.config.load import resolve_config
from music_ray.engines.base import EngineDeadError, PromptTooLongError, RequestError, RoleEngines
from music_ray.engines.scripted import ScriptedEngine
from music_ray.generate.speakers import ATTEMPTS, Speakers
from music_ray.jobs.metrics import Metrics

HISTORY = [{"role": "user", "content": "Hello"}]
TALK = [*HISTORY, {"role": "assistant", "content": "Good morning."}]


def speakers(script=None, counts=None, **sections) -> Speakers:
    config = resolve_config({"name": "t", "engine": {"kind": "scripted"}, **sections})
    engines = RoleEngines.same(ScriptedEngine(script))
    return Speakers(config, Counter() if counts is None else counts, Metrics("t"), engines)


def test_a_candidate_is_a_function_of_history_number_and_run_seed() -> None:
    seeds = []

    def script(prompt, sampling, seed):
        seeds.append(seed)
        return f"seed {seed}"

    async def draw(one: Speakers, history, number) -> str:
        return (await one.reply(history, number)).text

    async def all_of(one: Speakers) -> list[str]:
        return [
            await draw(one, history, number) for history in (HISTORY, TALK[:1] * 3) for number in range(4)
        ]

    first = asyncio.run(all_of(speakers(script)))
    assert len(set(first)) == 8 and all(0 <= seed < 2**31 for seed in seeds)
    assert asyncio.run(all_of(speakers(script))) == first
    assert not set(asyncio.run(all_of(speakers(script, seed=1)))) & set(first)


def test_the_user_says_one_thing_to_one_history() -> None:
    def script(prompt, sampling, seed):
        assert prompt.messages[-1]["content"].startswith("[Instruction") and sampling.max_tokens == 64
        return f"seed {seed}"

    one, again = (asyncio.run(speakers(script).question(TALK)).text for _ in range(2))
    other = asyncio.run(speakers(script).question([*TALK, *TALK])).text
    assert one == again != other


def test_an_empty_reply_is_drawn_again_and_its_tokens_count() -> None:
    counts: Counter[str] = Counter()
    answers = ["", " \n", "At last."]
    said = asyncio.run(speakers(lambda *_: answers.pop(0), counts).reply(HISTORY, 0))
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("At last.", 3, 2)
    assert counts["calls"] == 3 and counts["assistant.prompt"] == 3


@pytest.mark.parametrize(
    ("answer", "reason", "calls"),
    [
        ("", "empty_reply", ATTEMPTS),
        (PromptTooLongError("600 tokens"), "context_full", 1),
        (RequestError("429", "rate_limited"), "rate_limited", 1),
    ],
)
def test_where_there_is_no_reply_its_reason_is_told(answer, reason, calls) -> None:
    asked = []

    def script(prompt, sampling, seed):
        asked.append(seed)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(RequestError) as caught:
        asyncio.run(speakers(script).reply(HISTORY, 0))
    assert caught.value.reason == reason and len(set(asked)) == calls
    with pytest.raises(RequestError) as caught:
        asyncio.run(speakers(script).question(TALK))
    assert caught.value.reason == {"empty_reply": "empty_user_message"}.get(reason, reason)


def test_a_dead_engine_is_no_row() -> None:
    def script(prompt, sampling, seed):
        raise EngineDeadError("gone")

    with pytest.raises(EngineDeadError):
        asyncio.run(speakers(script).reply(HISTORY, 0))


def test_who_speaks_is_told() -> None:
    assert speakers().describe() == {
        "engine": "scripted", "model": "scripted", "model_revision": "", "user_model": "scripted",
    }  # fmt: skip
