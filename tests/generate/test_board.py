"""What the driver says while no task has ended."""

import asyncio

from music_ray.config import SamplingConfig
from music_ray.engines.base import Prompt
from music_ray.engines.scripted import ScriptedEngine
from music_ray.generate.board import Board, CountingEngine, Teller
from music_ray.progress import Progress


def test_the_board_sums_the_latest_word_of_every_engine():
    board = Board()
    assert board.totals() == {"engines": 0}
    board.report("a", {"calls": 1, "tokens": 10})
    board.report("b", {"calls": 2, "tokens": 5})
    board.report("a", {"calls": 4, "tokens": 30})
    assert board.totals() == {"engines": 2, "calls": 6, "tokens": 35}


def test_calls_and_tokens_are_counted_and_the_answer_is_unchanged():
    prompt = Prompt([{"role": "user", "content": "Hello"}])
    plain, counted = ScriptedEngine(), CountingEngine(ScriptedEngine())

    async def twice(engine):
        return [await engine.generate(prompt, SamplingConfig(), seed) for seed in (1, 2)]

    answers = asyncio.run(twice(counted))
    assert answers == asyncio.run(twice(plain))
    assert counted.counts == {"calls": 2, "tokens": sum(answer.completion_tokens for answer in answers)}
    assert counted.describe() == plain.describe()


def test_the_line_says_starting_then_how_far_it_is():
    teller = Teller(board=None, progress=Progress("generate", 40, done=8))
    start = teller._started
    assert (
        teller.line({"engines": 0}, start + 30) == "generate: 8/40 rollouts · engines starting · 30 s so far"
    )
    counts = {"engines": 2, "calls": 7, "tokens": 300}
    teller.line(counts, start + 40)
    assert teller.line(counts | {"tokens": 900}, start + 50) == (
        "generate: 8/40 rollouts · 7 calls · 900 tokens · 90 tokens/s · 2 engine(s) · 50 s so far"
    )
