"""The two branches of a rollout and what each waits for: early stops, replayed users, the shown reply."""

import asyncio

import pytest

from music_ray.engines.base import EngineDeadError, PromptTooLongError
from music_ray.generate.gates import first_refusal
from tests.generate.test_rollout import POOL, SEED, cast_of, grow, roles

TURNS = 4


def is_rejected(prompt):
    """Whether a prompt is of the rejected branch: one of its replies was written by a contrast."""
    return any(message["content"].startswith("wrong") for message in prompt.messages)


def wrong_or_right(prompt):
    """A reply that says which branch it is of; the pool holds what a contrast answers instead."""
    asked = prompt.messages[-1]["content"]
    turn = sum(message["role"] == "user" for message in prompt.messages)
    return f"{'wrong' if asked in POOL[1:] else 'right'} {turn}"


def count_calls(row, branch):
    return sum(call.branch == branch for call in row.calls)


# -- one branch stops early ------------------------------------------------------------------------


@pytest.mark.parametrize("loser", ["chosen", "rejected"])
def test_no_branch_runs_on_after_the_other_has_stopped(loser):
    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            return "Next?"
        if len(prompt.messages) == 3 and is_rejected(prompt) == (loser == "rejected"):
            raise PromptTooLongError("3 messages")
        return wrong_or_right(prompt)

    row = grow(SEED, cast_of(script, generate__turns=9))
    assert (row.status, row.reason, row.num_generated_turns) == ("ok", "context_full", 1)
    assert roles(row.chosen) == roles(row.rejected) == "ua"
    # Without the stop the other side would have made 17 calls: 9 replies and 8 user messages. It may have
    # been at work on the turn in which the other one stopped.
    winner = "chosen" if loser == "rejected" else "rejected"
    assert 1 <= count_calls(row, winner) <= 4


def test_a_branch_that_never_begins_stops_the_other():
    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            return "Next?"
        return "right" if prompt.messages[-1]["content"] == "How do I boil eggs?" else "  "

    row = grow(SEED, cast_of(script, generate__turns=9))
    assert (row.status, row.reason) == ("error", "empty_reply")
    assert count_calls(row, "chosen") <= 3


def test_the_row_tells_the_reason_of_the_branch_that_came_less_far():
    def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            return "Next?"
        if is_rejected(prompt) and len(prompt.messages) == 3:
            return ""
        if not is_rejected(prompt) and len(prompt.messages) == 5:
            raise PromptTooLongError("5 messages")
        return wrong_or_right(prompt)

    row = grow(SEED, cast_of(script, generate__turns=TURNS))
    assert (row.reason, row.num_generated_turns) == ("empty_reply", 1)


# -- user.history=replay_chosen --------------------------------------------------------------------


def replay_cast(script, **overrides):
    return cast_of(script, user__history="replay_chosen", generate__turns=TURNS, **overrides)


def users(messages):
    return [message["content"] for message in messages if message["role"] == "user"]


def talking(prompt, sampling, seed):
    if prompt.speaker == "user":
        return f"question {len(prompt.messages)} after {prompt.messages[-1]['content']}"
    return wrong_or_right(prompt)


def test_replayed_users_say_the_same_on_both_sides_and_are_asked_once():
    row = grow(SEED, replay_cast(talking))
    assert (row.status, row.num_generated_turns) == ("ok", TURNS)
    assert users(row.rejected) == users(row.chosen)
    assert users(row.chosen)[1] == "question 2 after right 1"
    assert [message["content"] for message in row.rejected[1::2]] == [f"wrong {n + 1}" for n in range(TURNS)]
    asked = [(call.turn, call.branch) for call in row.calls if call.role == "user"]
    assert asked == [(1, "chosen"), (2, "chosen"), (3, "chosen")]
    own = grow(SEED, cast_of(talking, generate__turns=TURNS))
    assert users(own.rejected) != users(own.chosen)
    assert len(own.calls) - len(row.calls) == TURNS - 1


def test_a_slow_chosen_branch_is_waited_for():
    async def script(prompt, sampling, seed):
        if not is_rejected(prompt):
            await asyncio.sleep(0.002)
        return talking(prompt, sampling, seed)

    row = grow(SEED, replay_cast(script, contrast__schedule="turns:[2, 4]"))
    assert users(row.rejected) == users(row.chosen) and len(row.rejected) == 2 * TURNS
    assert row.chosen[:3] == row.rejected[:3] and row.chosen[3] != row.rejected[3]


def test_replay_ends_where_the_chosen_branch_does():
    def script(prompt, sampling, seed):
        if prompt.speaker == "user" and len(prompt.messages) == 4:
            return ""
        return talking(prompt, sampling, seed)

    row = grow(SEED, replay_cast(script))
    assert (row.status, row.reason, row.num_generated_turns) == ("ok", "empty_user_message", 2)
    assert row.detail == "after turn 2 of the chosen branch"
    assert roles(row.rejected) == "uaua"


def test_nobody_waits_for_a_branch_whose_engine_died():
    async def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            raise EngineDeadError("gone")
        return wrong_or_right(prompt)

    async def with_limit():
        with pytest.raises(EngineDeadError, match="gone"):
            await asyncio.wait_for(asyncio.to_thread(grow, SEED, replay_cast(script)), 5)

    asyncio.run(with_limit())


# -- contrast.show_chosen_reply --------------------------------------------------------------------


def shown_cast(script, mode="direct", **overrides):
    return cast_of(script, contrast__mode=mode, contrast__show_chosen_reply=True, **overrides)


@pytest.mark.parametrize("mode", ["joint", "two_step", "direct"])
def test_the_chosen_reply_is_shown_where_both_sides_answer_the_same_message(mode):
    prompts = []

    async def script(prompt, sampling, seed):
        if prompt.speaker == "user":
            return f"question {seed}"
        told = prompt.messages[-1]["content"]
        if "[Instruction, not part of the conversation]" not in told:
            await asyncio.sleep(0.002)  # the rejected branch has to wait for it
            return f"the good reply ``` {sum(m['role'] == 'user' for m in prompt.messages)}"
        prompts.append(told)
        answers = {"direct": "Rice.", "two_step": "<modified_instruction>rice</modified_instruction>"}
        return answers.get(mode, "<modified_instruction>rice</modified_instruction><reply>Rice.</reply>")

    row = grow(SEED, shown_cast(script, mode, generate__turns=3, contrast__schedule="from_turn:2"))
    assert row.status == "ok" and row.first_contrast_turn == 2
    assert "\n````\nthe good reply ``` 2\n````\n" in prompts[0]
    assert len(prompts) == 2 and "the good reply" not in prompts[1]


def test_without_the_option_nothing_is_shown_or_waited_for():
    prompts = []

    def script(prompt, sampling, seed):
        prompts.append(prompt.messages[-1]["content"])
        return f"reply {seed}"

    row = grow(SEED, cast_of(script, contrast__mode="direct", generate__turns=1))
    told = [text for text in prompts if "[Instruction" in text]
    assert len(told) == 1 and row.chosen[1]["content"] not in told[0]


def test_a_chosen_reply_that_never_comes_ends_the_row_with_its_reason():
    asked = []

    def script(prompt, sampling, seed):
        asked.append(prompt)
        return ""

    row = grow(SEED, shown_cast(script))
    assert (row.status, row.reason) == ("error", "empty_reply")
    assert len(asked) == 1


def test_a_copy_of_the_shown_reply_is_no_contrast():
    row = grow(SEED, shown_cast(lambda *_: "Boil them for nine minutes.", generate__turns=1))
    assert (row.status, row.reason, row.detail) == ("error", "contrast_not_different", "turn 1, 3 attempts")


# -- contrast.mode=direct, and what the gates make of a joint answer --------------------------------


def test_direct_records_a_reply_and_no_instruction():
    def script(prompt, sampling, seed):
        told = prompt.messages[-1]["content"]
        if "Write a reply that does not do what" not in told:
            return "straight"
        drawn.append(seed)
        return "  " if len(drawn) == 1 else " Rice takes 12 minutes. "

    drawn = []
    row = grow(SEED, cast_of(script, contrast__mode="direct", generate__turns=1))
    contrast = row.contrasts[0]
    assert row.rejected[1]["content"] == "Rice takes 12 minutes."
    assert (contrast.instruction, contrast.mode, contrast.attempts) == ("", "direct", 2)
    assert len(set(drawn)) == 2
    calls = [(call.role, call.recorded) for call in row.calls if call.branch == "rejected"]
    assert calls == [("contrast", False), ("contrast", True)]
    assert row.rejected[0] == SEED.messages[0]


def test_direct_that_stays_empty_is_a_reason():
    row = grow(
        SEED,
        cast_of(
            lambda prompt, *_: "" if "[Instruction" in prompt.messages[-1]["content"] else "straight",
            contrast__mode="direct",
        ),
    )
    assert (row.status, row.reason, row.detail) == ("error", "contrast_unparsed", "turn 1, 3 attempts")


@pytest.mark.parametrize(
    ("answer", "finish_reason", "outcome"),
    [
        ("<reply>Two cups.</reply> And so on and", "length", "stop"),
        ("<reply>Two cups.", "stop", "stop"),
        ("<reply>Two cups and", "length", None),
    ],
)
def test_a_joint_reply_is_cut_off_only_when_its_end_was_not_written(answer, finish_reason, outcome):
    from music_ray.engines.base import Completion

    def script(prompt, sampling, seed):
        if "<modified_instruction>" not in prompt.messages[-1]["content"]:
            return "straight"
        text = f"<modified_instruction>boil rice</modified_instruction>{answer}"
        return Completion(text, finish_reason, 1, 0, 1)

    cast = cast_of(script, contrast__mode="joint", generate__turns=1)
    row = grow(SEED, cast)
    recorded = [call.finish_reason for call in row.calls if call.role == "contrast" and call.recorded]
    if outcome is None:
        assert (row.status, row.reason, recorded) == ("error", "contrast_unparsed", [])
    else:
        assert (row.status, recorded) == ("ok", [outcome])
        assert row.rejected[1]["content"] == "Two cups."
        refusal = first_refusal(row, cast.config.pairs.gates)
        assert refusal is None or refusal.reason != "cut_off"
