"""refusal_in_chosen: what declines, what only apologises, and the gate's precision on real replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from music_ray.config import GatesConfig
from music_ray.generate.gates import Refusal, first_refusal
from music_ray.generate.gates.refusals import find_refusal
from music_ray.schema import Rollout, content_id

GATES = GatesConfig(length_ratio=False)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("I'm sorry, but I can't help with that.", "I can't help"),
        ("I\u2019m sorry, but I can\u2019t assist you with this request.", "I can't assist"),
        ("I cannot provide instructions on how to do that.", "I cannot provide"),
        ("As an AI language model, I cannot have lunch.", "As an AI language model, I cannot have"),
        ("As an AI, it would be unethical to answer.", "As an AI, it would be unethical"),
        ("Unfortunately, I am not able to share this.", "I am not able to share"),
        ("I must respectfully decline to answer.", "I must respectfully decline to answer"),
        ("No, I won't.", "No, I won't."),
        ("Sorry, I can\u2019t. My shift is over.", "Sorry, I can't."),
        ("I'm not comfortable with that.", "I'm not comfortable with that"),
        ("I really  cannot\n tell you that.", "I really cannot tell you"),
        ("That would be against my guidelines.", "against my guidelines"),
        ("What a question! I'm not going to do that for you.", "I'm not going to do"),
        ('He said "yes". I cannot give you his number.', "I cannot give"),
    ],
)
def test_what_declines_is_found(reply: str, said: str) -> None:
    assert find_refusal(reply) == said


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry to hear that your cat is ill.",
        "I'm sorry, I don't understand. Could you say it in other words?",
        "Sorry about the mix-up! The capital of Australia is Canberra.",
        "I apologize for the confusion: 7 times 8 is 56.",
        "You can't help it. Nobody can.",
        "I can't help but admire this bridge.",
        "I can't tell you exactly, since it depends on the oven.",
        "I can't give you an exact number, roughly 300.",
        "I promise I won't tell anyone.",
        "I cannot recommend this book highly enough... I can't recommend it enough.",
        "I can't offer legal advice, but I can explain how a contract ends.",
        "As an AI language model, I don't eat. A cook would use basil.",
        "As an AI assistant, there are a few things I can't do for you. Here is a list.",
        'She said: "I cannot help you with this." Then she left.',
        "If I can't help you with this, the shop can.",
        "We cannot provide a table at eight; would nine suit you?",
        "Here is the letter you asked for. " * 7 + "I cannot help you further.",
        "",
    ],
)
def test_an_apology_or_an_answer_is_no_refusal(reply: str) -> None:
    assert find_refusal(reply) == ""


def test_only_the_chosen_side_s_generated_replies_are_judged(make_rollout: Callable[..., Rollout]) -> None:
    refusal = "I'm sorry, but I can't help with that."
    plain = ["A first answer.", "And then?", "A good answer that helps."]
    assert first_refusal(make_rollout(1, plain, [*plain[:2], refusal]), GATES) is None
    assert first_refusal(make_rollout(1, [plain[0], refusal, plain[2]]), GATES) is None
    assert first_refusal(make_rollout(1, [*plain[:2], refusal]), GATES) == Refusal(
        "refusal_in_chosen", 'the reply of turn 2 (chosen) refuses: "I can\'t help"'
    )


def test_a_letter_that_grows_in_lower_case_shifts_nothing() -> None:
    assert find_refusal("\u0130 see. I cannot help you.") == "i cannot help"


@pytest.mark.parametrize(("file", "num_found", "num_wrong"), [("train", 89, 4), ("dev", 14, 2)])
def test_nearly_all_that_is_found_in_real_replies_declines(
    shared_data: Path, file: str, num_found: int, num_wrong: int
) -> None:
    """Every reply that the markers find was read: the judgements are kept by hash of the text.

    The markers were written with the replies of `train` in view, hardly with those of `dev`.
    """
    judged = json.loads(Path(__file__).with_name("judged_refusals.json").read_text())
    right, wrong = set(judged["declines"]), set(judged["does_not"])
    rows = pq.read_table(shared_data / "preferences" / f"{file}.parquet").to_pylist()
    replies = {
        message["content"]
        for row in rows
        for side in ("chosen", "rejected")
        for message in row[side]
        if message["role"] == "assistant"
    }
    found = {content_id(reply): reply for reply in replies if find_refusal(reply)}
    unread = [reply for one, reply in found.items() if one not in right | wrong]
    assert unread == [], "read these, and put their content_id into judged_refusals.json"
    assert (len(found), len(found.keys() & wrong)) == (num_found, num_wrong)


def test_honest_dialogues_are_left_alone(shared_data: Path) -> None:
    rows = pq.read_table(shared_data / "multiturn" / "mt_bench_dialogues.parquet").to_pylist()
    replies = [m["content"] for row in rows for m in row["chosen"] if m["role"] == "assistant"]
    assert len(replies) == 506 and [reply for reply in replies if find_refusal(reply)] == []
