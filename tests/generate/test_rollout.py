"""The method on a scripted engine: who is asked what, where branches part, what a row holds."""

import asyncio
import dataclasses

import pytest

from music_ray.config.load import resolve_config
from music_ray.engines.base import Completion, EngineDeadError, PromptTooLongError, RequestError, RoleEngines
from music_ray.engines.scripted import ScriptedEngine
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.schema import SeedContext, content_id, conversation_hash

POOL = ["How do I boil eggs?", "How do I boil potatoes?", "Plan a trip to Rome.", "Sort a list in Python."]


def seed_of(*texts):
    messages = [
        {"role": "user" if index % 2 == 0 else "assistant", "content": text}
        for index, text in enumerate(texts)
    ]
    return SeedContext(content_id(messages), "test", "p1", conversation_hash(messages), messages)


SEED = seed_of("How do I boil eggs?")


def cast_of(script=None, **overrides):
    values = {"name": "t", "generate": {"turns": 3}, "user": {"mode": "template"}}
    values["contrast"] = {"mode": "neighbour"}
    for key, value in overrides.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    config = resolve_config(values)
    return Cast.of(config, RoleEngines.same(ScriptedEngine(script)), NeighbourPool(POOL, 0.8), run_epoch=1)


def grow(seed, cast):
    return asyncio.run(roll_out(seed, cast))


def roles(messages):
    return "".join(message["role"][0] for message in messages)


def test_a_row_holds_two_whole_conversations_of_equal_length():
    row = grow(SEED, cast_of())
    assert (row.status, row.reason, row.num_generated_turns, row.first_contrast_turn) == ("ok", "", 3, 1)
    assert roles(row.chosen) == roles(row.rejected) == "uauaua"
    assert row.chosen[0] == row.rejected[0] == SEED.messages[0]
    assert [contrast.turn for contrast in row.contrasts] == [1, 2, 3]


def test_one_branch_is_generated_once_before_the_first_contrast():
    row = grow(SEED, cast_of(contrast__schedule="from_turn:3"))
    assert row.chosen[:5] == row.rejected[:5]
    assert row.chosen[5] != row.rejected[5]
    shared = [(call.turn, call.role) for call in row.calls if call.branch == "shared"]
    assert shared == [(1, "assistant"), (1, "user"), (2, "assistant"), (2, "user")]
    assert [(call.turn, call.role) for call in row.calls if call.branch == "chosen"] == [(3, "assistant")]


def test_turns_between_contrasts_are_answered_straight():
    row = grow(SEED, cast_of(contrast__schedule="turns:[1, 3]"))
    assert [contrast.turn for contrast in row.contrasts] == [1, 3]
    answered = [(call.turn, call.role) for call in row.calls if call.branch == "rejected"]
    assert answered == [(1, "assistant"), (1, "user"), (2, "assistant"), (2, "user"), (3, "assistant")]


def test_each_branch_writes_its_users_from_its_own_history():
    histories = []

    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            histories.append([message["content"] for message in prompt.messages])
            return f"question after {len(prompt.messages)}"
        return f"reply {seed}"

    row = grow(SEED, cast_of(script))
    for branch in (row.chosen, row.rejected):
        texts = [message["content"] for message in branch]
        assert texts[:2] in histories and texts[:4] in histories
    assert len(histories) == 4


def test_the_modified_instruction_is_answered_but_never_recorded_in_the_history():
    asked = []

    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            return "And then?"
        asked.append([message["content"] for message in prompt.messages])
        return f"answer to {prompt.messages[-1]['content']}"

    row = grow(SEED, cast_of(script, generate__turns=2))
    first = row.contrasts[0]
    assert first.user_message == "How do I boil eggs?" and first.instruction in POOL
    assert first.instruction != first.user_message
    assert row.rejected[1]["content"] == f"answer to {first.instruction}"
    assert [first.instruction] in asked
    said_by_user = [message["content"] for message in row.rejected if message["role"] == "user"]
    assert said_by_user == ["How do I boil eggs?", "And then?"]
    assert row.chosen[1]["content"] == "answer to How do I boil eggs?"


def test_joint_parses_instruction_and_reply_and_retries_what_does_not_parse():
    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            return "More?"
        if "<modified_instruction>" not in prompt.messages[-1]["content"]:
            return "straight"
        calls.append(seed)
        if len(calls) == 1:
            return "I cannot do that."
        return "<modified_instruction>\nboil rice\n</modified_instruction>\n<reply>\nUse two cups.\n</reply>"

    calls = []
    row = grow(SEED, cast_of(script, contrast__mode="joint", generate__turns=1))
    assert row.rejected[1]["content"] == "Use two cups."
    assert (row.contrasts[0].instruction, row.contrasts[0].attempts) == ("boil rice", 2)
    assert len(set(calls)) == 2
    contrast_calls = [call.recorded for call in row.calls if call.role == "contrast"]
    assert contrast_calls == [False, True]


def test_two_step_answers_the_modified_instruction_in_a_clean_call():
    def script(prompt, sampling, seed):
        if "<modified_instruction>" in prompt.messages[-1]["content"]:
            return "<modified_instruction>boil rice</modified_instruction>"
        clean.append(prompt.messages)
        return "Rice takes 12 minutes."

    clean = []
    row = grow(SEED, cast_of(script, contrast__mode="two_step", generate__turns=1))
    assert row.rejected[1]["content"] == "Rice takes 12 minutes."
    assert [{"role": "user", "content": "boil rice"}] in clean
    assert [(call.role, call.recorded) for call in row.calls if call.branch == "rejected"] == [
        ("contrast", False),
        ("assistant", True),
    ]


def test_resample_draws_another_message_at_the_same_point():
    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            points.append(len(prompt.messages))
            return "Tell me about whales."
        return f"on {prompt.messages[-1]['content']}"

    points = []
    seed = seed_of("Hello", "Hi, how can I help?", "How do I boil eggs?")
    row = grow(seed, cast_of(script, contrast__mode="resample", generate__turns=1))
    assert points == [2]
    assert row.contrasts[0].instruction == "Tell me about whales."
    assert row.rejected[-1]["content"] == "on Tell me about whales."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no tags at all", "contrast_unparsed"),
        ("<modified_instruction>boil rice</modified_instruction><reply> </reply>", "contrast_unparsed"),
        (
            "<modified_instruction>how do i boil EGGS</modified_instruction><reply>x</reply>",
            "contrast_not_different",
        ),
    ],
)
def test_a_contrast_that_never_works_ends_the_row_with_its_reason(answer, reason):
    row = grow(SEED, cast_of(lambda *_: answer, contrast__mode="joint", generate__turns=1))
    assert (row.status, row.reason, row.detail) == ("error", reason, "turn 1, 3 attempts")
    assert (row.chosen, row.rejected, row.first_contrast_turn) == ([], [], 0)
    assert len([call for call in row.calls if call.role == "contrast"]) == 3


def test_both_branches_are_cut_to_the_turns_that_both_have():
    def script(prompt, sampling, seed):
        contents = [message["content"] for message in prompt.messages]
        if prompt.speaker == "user":
            return "Next?"
        if "wrong" in contents and len(contents) == 5:
            raise PromptTooLongError("5 messages")
        return "wrong" if contents[-1] in POOL[1:] else "right"

    row = grow(SEED, cast_of(script, generate__turns=4, contrast__schedule="turns:[1]"))
    assert (row.status, row.reason, row.num_generated_turns) == ("ok", "context_full", 2)
    assert roles(row.chosen) == roles(row.rejected) == "uaua"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(PromptTooLongError("too long"), "context_full"), (RequestError("no"), "request_refused")],
)
def test_a_request_that_fails_gives_an_error_row(error, reason):
    def script(prompt, sampling, seed):
        raise error

    row = grow(SEED, cast_of(script))
    assert (row.status, row.reason, row.detail) == ("error", reason, str(error))


def test_an_empty_reply_and_an_empty_user_are_reasons():
    row = grow(SEED, cast_of(lambda *_: "  "))
    assert (row.status, row.reason) == ("error", "empty_reply")
    row = grow(SEED, cast_of(lambda prompt, *_: "" if prompt.speaker == "user" else f"{prompt.messages[-1]}"))
    assert (row.status, row.reason, row.num_generated_turns) == ("ok", "empty_user_message", 1)


def test_cut_off_user_messages_are_drawn_again():
    def script(prompt, sampling, seed):
        if prompt.speaker == "assistant":
            return f"reply {seed}"
        draws.append(seed)
        reason = "length" if len(draws) % 2 else "stop"
        return Completion("next", reason, 1, 0, 1)

    draws = []
    row = grow(SEED, cast_of(script, generate__turns=2))
    users = [(call.finish_reason, call.recorded) for call in row.calls if call.role == "user"]
    assert users.count(("length", False)) == 2 and users.count(("stop", True)) == 2
    assert len(set(draws)) == 4


def test_a_dead_engine_decides_no_row():
    def script(prompt, sampling, seed):
        raise EngineDeadError("gone")

    with pytest.raises(EngineDeadError, match="gone"):
        grow(SEED, cast_of(script))


def test_the_plan_is_deterministic_and_every_call_has_its_own_seed():
    first, second = grow(SEED, cast_of()), grow(SEED, cast_of())
    assert [dataclasses.replace(call, seconds=0.0) for call in first.calls] == [
        dataclasses.replace(call, seconds=0.0) for call in second.calls
    ]
    assert first.chosen == second.chosen
    assert first.rejected == second.rejected
    seeds = [call.seed for call in first.calls]
    assert len(set(seeds)) == len(seeds)
    other = grow(
        SEED,
        Cast.of(
            cast_of().config.model_copy(update={"seed": 1}),
            RoleEngines.same(ScriptedEngine()),
            NeighbourPool(POOL, 0.8),
            run_epoch=1,
        ),
    )
    assert not {call.seed for call in other.calls} & set(seeds)


def test_prompted_user_is_told_its_part_after_the_history_without_a_system_role():
    seen = []

    def script(prompt, sampling, seed):
        if "You now play the USER" in prompt.messages[-1]["content"]:
            seen.append(prompt)
            return "And for soft eggs?"
        return f"reply {seed}"

    row = grow(SEED, cast_of(script, user__mode="prompted", generate__turns=2))
    assert row.chosen[2]["content"] == "And for soft eggs?"
    for prompt in seen:
        assert roles(prompt.messages) == "uau" and prompt.speaker == "assistant"
        assert prompt.messages[:2] in (row.chosen[:2], row.rejected[:2])


def test_the_hint_is_in_the_prompt_and_not_in_the_conversation():
    prompts = []

    def script(prompt, sampling, seed):
        prompts.append(prompt.messages[-1]["content"])
        return f"reply {seed}"

    row = grow(SEED, cast_of(script, assistant__hint="Be brief.", generate__turns=1))
    assert "How do I boil eggs?\nBe brief." in prompts
    assert all("Be brief." not in message["content"] for message in row.chosen + row.rejected)
