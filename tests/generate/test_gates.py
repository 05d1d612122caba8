"""Each quality gate: what it refuses, what it lets pass, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from music_ray.config import GatesConfig
from music_ray.generate.gates import Refusal, find_loop, first_refusal
from music_ray.schema import Call, Rollout

Maker = Callable[..., Rollout]
GATES = GatesConfig()
ALL = ("empty", "cut_off", "branches_equal", "template_leak", "looping")


def only(name: str) -> GatesConfig:
    return GatesConfig(**{gate: gate == name for gate in ALL})


def without(name: str) -> GatesConfig:
    return GatesConfig(**{gate: gate != name for gate in ALL})


def test_a_good_rollout_passes(make_rollout: Maker, make_call: Callable[..., Call]) -> None:
    calls = [make_call(1, "shared", finish="stop"), make_call(2, finish="stop")]
    assert first_refusal(make_rollout(1, calls=calls), GATES) is None


def test_the_gates_are_asked_in_order_and_can_be_switched_off(make_rollout: Maker) -> None:
    rollout = make_rollout(1, rejected=["A first answer.", " ", "User: hi"])
    assert first_refusal(rollout, GATES) == Refusal(
        "empty", "the user message after turn 1 (rejected) is empty"
    )
    assert first_refusal(rollout, without("empty")) == Refusal(
        "template_leak", "the reply of turn 2 (rejected) holds 'User:'"
    )
    assert first_refusal(rollout, only("looping")) is None


def test_the_seed_is_not_judged(make_rollout: Maker) -> None:
    context = [{"role": "user", "content": "<|im_start|> " + "a b c d e f g h " * 5}]
    rollout = make_rollout(1)
    chosen, rejected = context + rollout.chosen[1:], context + rollout.rejected[1:]
    assert first_refusal(make_rollout(1, context=context, chosen=[]), only("empty")) is None
    assert first_refusal(replace(rollout, context=context, chosen=chosen, rejected=rejected), GATES) is None


@pytest.mark.parametrize(
    ("call", "detail"),
    [
        ((2, "chosen", "assistant"), "the reply of turn 2 (chosen) was cut off after 64 tokens"),
        ((1, "shared", "user"), "the user message after turn 1 (shared) was cut off after 64 tokens"),
        ((2, "rejected", "contrast"), "the reply of turn 2 (rejected) was cut off after 64 tokens"),
        ((2, "rejected", "contrast", "length", False), None),
        ((2, "rejected", "contrast", "stop"), None),
        ((2, "chosen", "user"), None),
        ((3, "chosen", "assistant"), None),
    ],
)
def test_cut_off_looks_at_what_is_in_the_conversation(
    make_rollout: Maker, make_call: Callable[..., Call], call: tuple[Any, ...], detail: str | None
) -> None:
    refusal = first_refusal(make_rollout(1, calls=[make_call(*call)]), only("cut_off"))
    assert refusal == (None if detail is None else Refusal("cut_off", detail))


def test_equal_branches_and_equal_replies_are_refused(make_rollout: Maker) -> None:
    same = ["A first answer.", "And then?", "The same."]
    assert first_refusal(make_rollout(1, same, same), only("branches_equal")) == Refusal(
        "branches_equal", "chosen and rejected hold the same messages"
    )
    spaced = [*same[:2], "The same. "]
    assert first_refusal(make_rollout(1, same, spaced), only("branches_equal")) == Refusal(
        "branches_equal", "the contrasted reply of turn 2 equals the chosen one"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Yes.<|im_end|>",
        "<|im_start|>user",
        "x <start_of_turn> y",
        "x<end_of_turn>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "[INST] do",
        "done [/INST]",
        "<<SYS>>",
        "Bye</s>",
        "<bos>",
        "<\uff5cUser\uff5c>",
        "</think>",
        "</reply>",
        "Fine.\n### Human: more",
        "### Instruction: do",
        "Fine.\nUser: more",
        "Fine.\n\nAssistant: more",
        "Human: more",
        "**User:** more",
        "assistant\n\nSure!",
    ],
)
def test_template_markers_are_found(make_rollout: Maker, text: str) -> None:
    refusal = first_refusal(make_rollout(1, rejected=["A first answer.", "And then?", text]), GATES)
    assert refusal is not None and refusal.reason == "template_leak"


@pytest.mark.parametrize(
    "text",
    [
        "Ask the user: what next?",
        "A human: being.",
        "The assistant\nworks.",
        "if a <b> or c < d | e > f",
        "### Ingredients: flour",
        "| a | b |\n|---|---|",
        "Name: Ann\nUsername: ann",
        "x <reply@example.org>",
    ],
)
def test_honest_text_is_no_leak(make_rollout: Maker, text: str) -> None:
    assert first_refusal(make_rollout(1, rejected=["A first answer.", "And then?", text]), GATES) is None


def test_loops_of_words_and_lines() -> None:
    eight = "one two three four five six seven eight"
    assert find_loop(f"{eight}. {eight.title()}, {eight}", 8, 3) == eight
    assert find_loop("| --- " * 30 + "|", 8, 3) == ""
    assert find_loop(f"{eight} and {eight}", 8, 3) == ""
    assert find_loop("ha " * 10, 8, 3) == "ha ha ha ha ha ha ha ha"
    assert find_loop("ha " * 9, 8, 3) == ""
    assert find_loop("I like it here.\nYes.\n" * 3, 8, 3) == "I like it here."
    assert find_loop("I like it here.\nYes.\n" * 2, 8, 3) == ""
    assert find_loop("}\n\nreturn x\n" * 3, 8, 3) == ""
    assert find_loop("", 8, 3) == ""


def test_a_loop_is_refused_with_its_text(make_rollout: Maker) -> None:
    rollout = make_rollout(1, chosen=["A first answer.", "And then?", "no " * 40])
    assert first_refusal(rollout, GATES) == Refusal(
        "looping", "the reply of turn 2 (chosen) repeats 'no no no no no no no no'"
    )
    assert first_refusal(rollout, GatesConfig(loop_count=34)) is None
