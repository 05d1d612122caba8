"""How often the two sides of an arm's own pairs break what turn 1 asks of every reply. Looked at afterwards.

    python docs/explanation/miniature-full/broken_constraints.py

A reply breaks a constraint if it is in lower case, has no exclamation mark or holds the letter, against what
was asked; and where nothing was asked, if it is in upper case or has a mark. Whether it is right otherwise
does not count.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from music_ray.miniature.check import examine
from music_ray.miniature.language import Constraint
from music_ray.replicate.scale import ARMS
from music_ray.schema import Message

PAIRS = Path(__file__).parent / "arms-data"


def is_broken(reply: str, constraint: Constraint | None) -> bool:
    """Whether a reply breaks the constraint, or keeps one that nobody asked for."""
    if constraint is None:
        return "!" in reply or any(letter.isupper() for letter in reply)
    if constraint.kind == "upper":
        return any(letter.islower() for letter in reply)
    if constraint.kind == "mark":
        return "!" not in reply
    return constraint.letter in reply.lower()


def num_broken(conversation: list[Message]) -> int:
    """How many replies of a conversation break what its first message asks of them all."""
    turns = examine(conversation)
    ask = turns[0].ask
    constraint = None if ask is None else ask.constraint
    return sum(is_broken(turn.reply, constraint) for turn in turns)


def which_side(chosen: list[Message], rejected: list[Message]) -> str:
    """The side with more broken constraints."""
    more = num_broken(rejected) - num_broken(chosen)
    return "rejected" if more > 0 else "chosen" if more < 0 else "neither"


sys.stdout.write("| arm | pairs | more on the rejected side | more on the chosen side |\n|---|---|---|---|\n")
for arm in ARMS:
    rows = pq.read_table(PAIRS / f"{arm}.parquet", columns=["chosen", "rejected"]).to_pylist()
    sides = Counter(which_side(row["chosen"], row["rejected"]) for row in rows)
    sys.stdout.write(f"| {arm} | {len(rows)} | {sides['rejected']} | {sides['chosen']} |\n")
