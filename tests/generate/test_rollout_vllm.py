"""The method with a real model inside real vLLM: the contrast modes that a 135M model can do."""

import asyncio

import pytest

from music_ray.config.load import resolve_config
from music_ray.engines.base import RoleEngines
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.schema import SeedContext, content_id, conversation_hash

pytestmark = pytest.mark.slow
QUESTIONS = [
    "How long should I boil eggs for a firm yolk?",
    "Why does the sky look red at sunset?",
    "Name three things to pack for a weekend at the sea.",
]


def seed_of(question):
    messages = [{"role": "user", "content": question}]
    return SeedContext(content_id(messages), "test", "p", conversation_hash(messages), messages)


@pytest.mark.parametrize(
    ("mode", "history"), [("neighbour", "own"), ("resample", "replay_chosen"), ("direct", "own")]
)
def test_three_rollouts_at_once(demo_engine, mode, history):
    config = resolve_config(
        {
            "name": "t",
            "generate": {"turns": 2},
            "user": {"mode": "template", "history": history, "sampling": {"max_tokens": 24}},
            "assistant": {"sampling": {"max_tokens": 32, "temperature": 0.5}},
            "contrast": {"mode": mode, "schedule": "all"},
        }
    )
    cast = Cast.of(config, RoleEngines.same(demo_engine), NeighbourPool(QUESTIONS, 0.8), run_epoch=1)

    async def all_of_them():
        return await asyncio.gather(*(roll_out(seed_of(question), cast) for question in QUESTIONS))

    rows = asyncio.run(all_of_them())
    assert [row.status for row in rows] == ["ok"] * 3
    for row, question in zip(rows, QUESTIONS, strict=True):
        assert row.chosen[0]["content"] == row.rejected[0]["content"] == question
        assert len(row.chosen) == len(row.rejected) and row.chosen[1] != row.rejected[1]
        assert row.contrasts[0].instruction.strip() != question
        if history == "replay_chosen":
            assert row.chosen[0::2] == row.rejected[0::2]
        assert sum(call.completion_tokens for call in row.calls) > 20
