"""Asking a judge: both orders, one retry, and what a request that fails leaves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from music_ray.config import JudgeConfig, SamplingConfig
from music_ray.engines.base import EngineDeadError, Prompt, PromptTooLongError, RequestError
from music_ray.engines.scripted import ScriptedEngine
from music_ray.judge.ask import Judge, Judgement
from music_ray.judge.verdict import Verdict
from tests.judge.test_prompt import talk

ONE, OTHER = talk("q", "good"), talk("q", "bad")
SAMPLING = JudgeConfig().sampling


class Script:
    """Answers in turn, an exception being raised; keeps what was asked."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, SamplingConfig, int]] = []

    def __call__(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> str:
        self.asked.append((prompt.messages[0]["content"], sampling, seed))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def compare(script: Callable[..., Any], seed: int = 7) -> Judgement:
    return asyncio.run(Judge(ScriptedEngine(script), SAMPLING).compare(ONE, OTHER, seed=seed))


def test_each_conversation_is_shown_first_once() -> None:
    script = Script("<verdict>A</verdict>", "because\n<verdict>B</verdict>")
    said = compare(script)
    assert (said.first, said.second, said.verdict) == (Verdict.A, Verdict.B, Verdict.A)
    assert (said.first_answer, said.second_answer) == (
        "<verdict>A</verdict>",
        "because\n<verdict>B</verdict>",
    )
    (first, *_), (second, *_) = script.asked
    assert first.index("good") < first.index("bad") and second.index("bad") < second.index("good")
    assert said.prompt_tokens == len(first.split()) + len(second.split()) and said.completion_tokens == 3
    assert said.reason == "" and said.seconds > 0


def test_an_answer_without_a_verdict_is_drawn_once_more_with_another_seed() -> None:
    script = Script("hm", "<verdict>tie</verdict>", "hm", "hm again")
    said = compare(script)
    assert (said.first, said.second, said.verdict) == (Verdict.TIE, Verdict.INVALID, Verdict.INVALID)
    assert said.second_answer == "hm again" and not script.answers
    assert [sampling.temperature for _, sampling, _ in script.asked] == [0.0, 0.5, 0.0, 0.5]
    seeds = [seed for *_, seed in script.asked]
    assert len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)
    again = Script("hm", "<verdict>tie</verdict>", "hm", "hm again")
    compare(again)
    assert again.asked == script.asked, "the same comparison has the same seeds"
    other = Script("hm", "<verdict>tie</verdict>", "hm", "hm again")
    compare(other, seed=8)
    assert not {seed for *_, seed in other.asked} & set(seeds)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RequestError("no", "rate_limited"), "rate_limited"), (PromptTooLongError("no"), "context_full")],
)
def test_a_request_that_fails_ends_the_comparison_with_its_reason(error: Exception, reason: str) -> None:
    said = compare(Script("<verdict>A</verdict>", error))
    assert (said.first, said.second, said.verdict) == (Verdict.A, None, None)
    assert (said.reason, said.detail) == (reason, "no") and said.completion_tokens == 1
    script = Script(error)
    assert compare(script).first is None and len(script.asked) == 1


def test_a_dead_engine_decides_nothing() -> None:
    with pytest.raises(EngineDeadError):
        compare(Script(EngineDeadError("gone")))
