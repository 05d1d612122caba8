"""The plan's calls against real rollouts on a scripted engine: as many, as long, as much of them cached."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import Counter

import pytest

from music_ray import prompts
from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.engines.base import Completion, RoleEngines
from music_ray.engines.scripted import ScriptedEngine
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.planning.calls import (
    DRAWN_SCHEDULES,
    Lengths,
    expected_calls,
    plan_rollout,
    schedules,
)
from music_ray.schema import Message, Rollout, SeedContext, content_id, conversation_hash

REPLY, QUESTION, OPENING, BEFORE = 11, 5, 7, 9
"""Words of a reply, of a user message, of the seed's last message and of what stands before it."""
HINT = "Please be very brief."


def words(number: int, key: object) -> str:
    """So many words that no other key gives."""
    name = content_id([str(key)]) % 10**12
    return " ".join(f"w{name}x{index}" for index in range(number))


class WordEngine:
    """A scripted engine whose tokens are words, with a prefix cache of its own."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.seen: list[list[str]] = []

    def __call__(self, prompt, sampling, seed) -> Completion:
        last = prompt.messages[-1]["content"]
        text = words(REPLY, seed)
        if prompt.speaker == "user" or "You now play the USER" in last:
            text = words(QUESTION, seed)
        elif "[Instruction, not part" in last and self.mode in ("joint", "two_step"):
            text = f"<modified_instruction>\n{words(QUESTION, seed)}\n</modified_instruction>"
            if self.mode == "joint":
                text += f"\n<reply>\n{words(REPLY, -seed)}\n</reply>"
        asked = [word for message in prompt.messages for word in message["content"].split()]
        cached = max((common(asked, one) for one in self.seen), default=0)
        self.seen.append(asked + text.split())
        return Completion(text, "stop", len(asked), cached, len(text.split()))


def common(left: list[str], right: list[str]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(left, right, strict=False)))


def config_of(**sections) -> RunConfig:
    return resolve_config({"name": "t", "engine": {"kind": "scripted"}, **sections})


def seed_number(number: int) -> SeedContext:
    texts = [words(BEFORE - 4, ("a", number)), words(4, ("b", number)), words(OPENING, ("c", number))]
    messages: list[Message] = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant", "user"), texts, strict=True)
    ]
    return SeedContext(content_id(messages), "test", "p", conversation_hash(messages), messages)


def rollouts(config: RunConfig, number: int = 1) -> list[Rollout]:
    pool = NeighbourPool([words(QUESTION, ("pool", one)) for one in range(200)], 0.8)
    rows = []
    for one in range(number):
        engines = RoleEngines.same(ScriptedEngine(WordEngine(config.contrast.mode)))
        rows.append(asyncio.run(roll_out(seed_number(one), Cast.of(config, engines, pool, run_epoch=1))))
    assert {(row.status, row.reason) for row in rows} == {("ok", "")}
    return rows


def lengths_of(config: RunConfig) -> Lengths:
    """The lengths that the scripted texts really have, in words."""
    mode = config.contrast.mode
    contrast_prompt = 0
    if mode in ("joint", "two_step", "direct"):
        values = {"message": "x", "history": [], "chosen_reply": None, "turn": 1, "num_turns": 1}
        contrast_prompt = len(prompts.render(f"contrast_{mode}.j2", **values).split()) - 1
    limit = round(config.user.sampling.max_tokens * 0.6)
    return Lengths(
        before=BEFORE,
        opening=OPENING,
        question=QUESTION,
        reply=REPLY,
        hint=len(HINT.split()),
        user_prompt=len(prompts.render("user_prompted.j2", has_history=True, max_words=limit).split()),
        contrast_prompt=contrast_prompt,
        completions={
            "assistant": REPLY,
            "user": QUESTION,
            "contrast": {"joint": REPLY + QUESTION + 4, "two_step": QUESTION + 2, "direct": REPLY}.get(
                mode, QUESTION
            ),
        },
    )


SCHEDULES = ["all", "from_turn:3", "turns:[2, 4]", "turns:[4]"]
MODES = ["joint", "two_step", "direct", "neighbour", "resample"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("history", ["own", "replay_chosen"])
@pytest.mark.parametrize("user_mode", ["prompted", "template"])
@pytest.mark.parametrize("hint", [None, HINT])
def test_every_call_is_foreseen_with_its_tokens(mode, schedule, history, user_mode, hint) -> None:
    config = config_of(
        generate={"turns": 4},
        contrast={"mode": mode, "schedule": schedule},
        user={"mode": user_mode, "history": history},
        assistant={"hint": hint},
    )
    [row] = rollouts(config)
    [(probability, spoiled)] = schedules(config)
    planned = plan_rollout(config, spoiled, lengths_of(config), block=1)
    assert probability == 1.0
    assert sorted(dataclasses.astuple(call) for call in planned) == sorted(
        (call.role, call.branch, call.turn, call.prompt_tokens, call.cached_tokens, call.completion_tokens)
        for call in row.calls
    )


def test_a_shown_chosen_reply_makes_one_prompt_longer_and_no_call_more() -> None:
    plain, shown = (
        config_of(generate={"turns": 3}, contrast={"mode": "joint", "show_chosen_reply": choice})
        for choice in (False, True)
    )
    [(_, spoiled)] = schedules(plain)
    before, after = (plan_rollout(config, spoiled, lengths_of(config)) for config in (plain, shown))
    longer = [two.prompt_tokens - one.prompt_tokens for one, two in zip(before, after, strict=True)]
    assert sorted(longer) == [0.0] * (len(before) - 1) + [REPLY]
    assert len(rollouts(shown)[0].calls) == len(after)


@pytest.mark.parametrize("turns", [1, 3, 5])
@pytest.mark.parametrize("probability", [0.2, 0.7, 1.0])
def test_drawn_schedules_are_right_on_average(turns: int, probability: float) -> None:
    config = config_of(
        generate={"turns": turns},
        contrast={"mode": "two_step", "schedule": f"probability:{probability}"},
        user={"mode": "template"},
    )
    rows = rollouts(config, 400)
    expected = expected_calls(config)
    for role, number in expected.items():
        counts = [Counter(call.role for call in row.calls)[role] for row in rows]
        mean = sum(counts) / len(counts)
        spread = (sum((one - mean) ** 2 for one in counts) / len(counts)) ** 0.5
        assert mean == pytest.approx(number, abs=4 * spread / len(counts) ** 0.5 + 1e-9), role


@pytest.mark.parametrize("schedule", [*SCHEDULES, "probability:0.3", "probability:1"])
@pytest.mark.parametrize("turns", [4, 8, 9, 64])
def test_probabilities_of_schedules_add_up(schedule: str, turns: int) -> None:
    found = schedules(config_of(generate={"turns": turns}, contrast={"schedule": schedule}))
    assert sum(probability for probability, _ in found) == pytest.approx(1.0)
    assert all(spoiled and spoiled <= set(range(1, turns + 1)) for _, spoiled in found)
    assert len(found) <= DRAWN_SCHEDULES + turns + 2**8


def test_a_long_rollout_with_drawn_schedules_has_about_the_exact_number_of_contrasts() -> None:
    config = config_of(generate={"turns": 20}, contrast={"mode": "direct", "schedule": "probability:0.25"})
    exact = 20 * 0.25 + 0.75**20
    assert expected_calls(config)["contrast"] == pytest.approx(exact, rel=0.1)


def test_the_paper_s_run_by_hand() -> None:
    config = config_of(generate={"turns": 5}, contrast={"mode": "joint", "schedule": "all"})
    assert expected_calls(config) == {"assistant": 5, "user": 8, "contrast": 5}
    late = config_of(generate={"turns": 5}, contrast={"mode": "joint", "schedule": "from_turn:4"})
    # Three shared turns with a question each; then 2 + 2 replies, two of them contrasts, and 1 + 1 questions.
    assert expected_calls(late) == {"assistant": 3 + 2, "user": 3 + 2, "contrast": 2}


def test_an_engine_of_its_own_has_no_part_in_the_cache_of_the_others() -> None:
    endpoint = {"kind": "endpoint", "model": "m", "endpoint": {"base_url": "http://127.0.0.1:1/v1"}}
    shared = config_of(generate={"turns": 3}, contrast={"mode": "neighbour"})
    apart = config_of(generate={"turns": 3}, contrast={"mode": "neighbour"}, user={"engine": endpoint})
    [(_, spoiled)] = schedules(shared)

    def cached(config: RunConfig, role: str) -> float:
        calls = plan_rollout(config, spoiled, lengths_of(config), block=1)
        return sum(call.cached_tokens for call in calls if call.role == role)

    assert cached(shared, "user") > 0
    assert cached(apart, "user") == 0
    assert 0 < cached(apart, "assistant") <= cached(shared, "assistant")
