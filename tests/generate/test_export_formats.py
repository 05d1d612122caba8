"""The turn where two sides part, in pairs of every shape."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from music_ray.generate.export.formats import NotExportable, dpo_row


def test_real_pairs_part_like_that_too(shared_data: Path) -> None:
    """D's own pairs are of every shape: each gives a row with one prompt and two replies, or a reason."""
    table = pq.read_table(shared_data / "preferences" / "train.parquet", columns=["chosen", "rejected"])
    parted = 0
    for number, pair in enumerate(table.slice(0, 500).to_pylist()):
        pair |= {"id": str(number), "source": "d", "conversation": 0, "branch_turn": 1}
        try:
            row = dpo_row(pair)
        except NotExportable as reason:
            assert str(reason) in ("same_reply", "prompts_differ")
            continue
        parted += 1
        assert [message["role"] for message in row["prompt"]][-1] == "user"
        assert row["prompt"] + row["chosen"] == pair["chosen"][: len(row["prompt"]) + 1]
        assert row["prompt"] + row["rejected"] == pair["rejected"][: len(row["prompt"]) + 1]
        assert row["chosen"] != row["rejected"]
    assert parted > 400


_TEXTS = st.sampled_from(["a", "b", " a "])


@given(st.lists(_TEXTS, min_size=1, max_size=6), st.lists(_TEXTS, min_size=1, max_size=6))
def test_a_row_has_one_prompt_and_two_replies_or_there_is_none(left: list[str], right: list[str]) -> None:
    sides = [
        [
            {"role": ("user", "assistant")[index % 2], "content": text}
            for index, text in enumerate(["q", *side])
        ]
        for side in (left, right)
    ]
    pair = {
        "id": "1",
        "source": "",
        "conversation": 0,
        "branch_turn": 1,
        "chosen": sides[0],
        "rejected": sides[1],
    }
    try:
        row = dpo_row(pair)
    except NotExportable as reason:
        same = [message["content"].strip() for message in sides[0]], [m["content"].strip() for m in sides[1]]
        length = min(map(len, same))
        first = next((index for index in range(length) if sides[0][index] != sides[1][index]), None)
        if str(reason) == "prompts_differ":
            assert first is not None and first % 2 == 0
        else:
            assert first is None or same[0][first] == same[1][first]
        return
    assert row["prompt"][-1]["role"] == "user"
    assert sides[0][: len(row["prompt"])] == sides[1][: len(row["prompt"])] == row["prompt"]
    assert row["chosen"][0]["content"].strip() != row["rejected"][0]["content"].strip()
