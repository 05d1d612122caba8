"""Reading a joint answer: what is complete, what is not, and what only repeats the prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.generate.contrasts.tags import find_instruction, find_joint

ASKED = "<modified_instruction>\nboil rice\n</modified_instruction>\n"


@pytest.mark.parametrize(
    ("answer", "finish_reason", "found"),
    [
        (f"{ASKED}<reply>\nTwo cups.\n</reply>", "stop", ("boil rice", "Two cups.", True)),
        (f"Sure!\n{ASKED}<reply>Two cups.</reply> I hope", "length", ("boil rice", "Two cups.", True)),
        (f"{ASKED}<reply>Two cups.\n", "stop", ("boil rice", "Two cups.", True)),
        (f"{ASKED}<reply>Two cups of", "length", ("boil rice", "", False)),
        (f"{ASKED}<reply> </reply>", "stop", ("boil rice", "", True)),
        (f"{ASKED}<reply> </reply> Two cups. </reply>", "stop", ("boil rice", "", True)),
        (ASKED, "stop", ("boil rice", "", True)),
        ("<modified_instruction>boil rice <reply>Two cups.</reply>", "stop", ("", "", False)),
        (f"<reply>Two cups.</reply>\n{ASKED}", "stop", ("boil rice", "", True)),
        (f"{ASKED}<reply>\nthe reply to the modified instruction\n</reply>", "stop", ("boil rice", "", True)),
        (
            "<modified_instruction>[The modified instruction]</modified_instruction><reply>Two.</reply>",
            "stop",
            ("", "", False),
        ),
        ("I can't do that.", "stop", ("", "", False)),
    ],
)
def test_joint_answers(answer, finish_reason, found):
    assert find_joint(answer, finish_reason) == found


def test_an_instruction_must_be_closed():
    assert find_instruction(ASKED) == "boil rice"
    assert find_instruction("<modified_instruction>boil rice") == ""


@given(st.text(min_size=1).map(str.strip).filter(lambda text: text and "<" not in text), st.text())
def test_what_stands_between_the_tags_comes_out_as_it_is(reply, rambling):
    answer = f"{ASKED}<reply>\n{reply}\n</reply>{rambling}"
    if reply.lower().strip("[](). ") != "the reply to the modified instruction":
        assert find_joint(answer, "length") == ("boil rice", reply, True)
