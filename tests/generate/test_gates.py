"""Each quality gate: what it refuses, what it lets pass, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from music_ray.config import GatesConfig
from music_ray.generate.gates import Refusal, find_loop, first_refusal
from music_ray.generate.gates.base import runs, words
from music_ray.generate.gates.sides import length_ratio, similarity
from music_ray.schema import Call, Contrast, Rollout

Maker = Callable[..., Rollout]
GATES = GatesConfig()
ALL = (
    "empty", "cut_off", "branches_equal", "branches_alike", "template_leak", "looping", "refusal_in_chosen",
    "length_ratio", "eval_overlap",
)  # fmt: skip


def only(name: str, **bounds: Any) -> GatesConfig:
    return GatesConfig(**{gate: gate == name for gate in ALL}, **bounds)


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
    rollout = make_rollout(1, rejected=["A first answer.", "And then?", text])
    refusal = first_refusal(rollout, without("length_ratio"))
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
    assert first_refusal(rollout, only("length_ratio")) == Refusal(
        "length_ratio",
        "144 generated characters in chosen, 46 in rejected: one is more than 3 times the other",
    )
    assert first_refusal(rollout, GATES) == Refusal(
        "looping", "the reply of turn 2 (chosen) repeats 'no no no no no no no no'"
    )
    assert first_refusal(rollout, GatesConfig(loop_count=34, length_ratio=False)) is None


FOURTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_sides_that_say_nearly_the_same_are_refused(make_rollout: Maker) -> None:
    """14 words are 12 runs of three; another last word changes one of them: 11 of 13 are shared."""
    other = FOURTEEN.replace("fourteen", "XIV")
    rollout = make_rollout(1, ["Same.", "And?", FOURTEEN], ["Same.", "And?", other])
    assert first_refusal(rollout, only("branches_alike", branches_alike_similarity=0.84)) == Refusal(
        "branches_alike", "from where they part, chosen and rejected are 0.85 alike"
    )
    assert first_refusal(rollout, only("branches_alike", branches_alike_similarity=0.85)) is None


def test_a_contrast_that_changed_only_signs_is_refused(make_rollout: Maker) -> None:
    chosen = ["Paris, of course.", "And of Italy?", "It is Rome, which is old."]
    rejected = ["paris (of course)", "Why?", "Nobody asked you that."]
    contrasts = [Contrast(turn, "", "", "joint", 1) for turn in (1, 2, 7)]
    rollout = make_rollout(1, chosen, rejected, contrasts=contrasts)
    assert first_refusal(rollout, GATES) == Refusal(
        "branches_alike", "the contrasted reply of turn 1 is 1.00 like the chosen one"
    )
    assert first_refusal(replace(rollout, contrasts=contrasts[1:]), GATES) is None


def test_texts_without_words_are_like_nothing(make_rollout: Maker) -> None:
    rollout = make_rollout(1, ["Same.", "And?", "\U0001f642"], ["Same.", "And?", "\U0001f389!!"])
    assert first_refusal(rollout, only("branches_alike")) is None


def test_length_is_compared_at_its_bound(make_rollout: Maker) -> None:
    exact = make_rollout(1, ["a" * 10, "b" * 10, "c" * 10], ["a" * 10, "b" * 10, "c" * 70])
    assert first_refusal(exact, only("length_ratio")) is None
    assert first_refusal(exact, only("length_ratio", max_length_ratio=2.9)) == Refusal(
        "length_ratio",
        "30 generated characters in chosen, 90 in rejected: one is more than 2.9 times the other",
    )


TEXTS = st.text(st.sampled_from("ab  \n.,'\u2019X"), max_size=60)
BRANCH = st.lists(TEXTS, min_size=3, max_size=3)
# make_rollout keeps nothing from one example to the next.
stateless_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@stateless_fixture
@given(BRANCH, BRANCH)
def test_a_gate_says_the_same_of_the_same_rollout(
    make_rollout: Maker, chosen: list[str], rejected: list[str]
) -> None:
    first, again = make_rollout(1, chosen, rejected), make_rollout(1, list(chosen), list(rejected))
    assert first_refusal(first, GATES) == first_refusal(again, GATES) == first_refusal(first, GATES)
    assert first == again


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_similarity_is_symmetric_and_between_0_and_1(one: str, other: str) -> None:
    assert similarity(one, other) == similarity(other, one)
    assert 0.0 <= similarity(one, other) <= 1.0
    assert similarity(one, one) == (1.0 if words(one) else 0.0)


@stateless_fixture
@given(BRANCH, BRANCH, st.floats(1.01, 10))
def test_length_ratio_is_symmetric_and_keeps_its_bound(
    make_rollout: Maker, chosen: list[str], rejected: list[str], bound: float
) -> None:
    gates = GatesConfig(max_length_ratio=bound)
    long, short = sorted((len("".join(chosen)), len("".join(rejected))), reverse=True)
    refused = bool(length_ratio(make_rollout(1, chosen, rejected), gates))
    assert refused == bool(length_ratio(make_rollout(1, rejected, chosen), gates))
    assert refused == (long > bound * short)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=20), st.integers(1, 8))
def test_runs_are_all_there(listed: list[str], length: int) -> None:
    expected = [tuple(listed[start : start + length]) for start in range(len(listed) - length + 1)]
    assert runs(listed, length) == expected


def test_words_are_compared_without_signs() -> None:
    assert words("Don't -- DON\u2019T; well-known, 3.5 _x_") == [
        "dont", "dont", "well", "known", "3", "5", "x",
    ]  # fmt: skip
