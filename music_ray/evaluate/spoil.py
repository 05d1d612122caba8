"""Good conversations with one reply spoiled: what a model that reads every turn gives a lower score.

A good conversation is the chosen side of a pair with two turns or more. One of its replies is replaced, and
every message after it stays as it is: from there on the conversation is off, and whether the score sees that
is what is measured. Two kinds of spoiled reply:

- `foreign`: the reply of another conversation at the same turn, of those drawn the closest in length, so that
  length is not what the score sees;
- `contrast`: the rejected side's reply to the very same user message at the turn where the sides part, where
  the pair has one. Later replies of the rejected side are left alone: it may go on with the same user
  messages, and a reply of it that was not contrasted is as good as any.

Knows conversations, not scores, models or files.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from music_ray.evaluate.pair_sets import EvalPair
from music_ray.schema import Message, content_id, conversation_hash, first_difference, split_turns

FOREIGN, CONTRAST = "foreign", "contrast"
KINDS = (FOREIGN, CONTRAST)
SAMPLE = 32
"""Replies of other conversations that the closest in length is taken of. All of a large set would hold one of
the very same length and often of the same words; few would leave length to chance."""
MOST = 2000
"""Good conversations of a set that are spoiled, the first by a hash: each costs a score for every turn and
kind, and more would narrow no interval that matters."""
_DRAWS = 4 * SAMPLE
"""Draws for that sample: some are of the same conversation, or say the same."""


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A good conversation of which one reply was replaced."""

    index: int
    """Of the pair in its set whose chosen side it was."""
    kind: str
    turn: int
    """Of the replaced reply, counted from 1."""
    num_turns: int
    messages: list[Message]

    @property
    def distance(self) -> int:
        """Turns between the replaced reply and the end: 0 is the last reply."""
        return self.num_turns - self.turn


@dataclass
class Spoiling:
    """All that can be spoiled of one pair set."""

    good: list[int] = field(default_factory=list)
    """Indices of the pairs whose chosen side is a good conversation, each conversation once."""
    spoiled: list[Spoiled] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Pairs whose chosen side is not among the good, by reason."""
    no_foreign_reply: int = 0
    """Turns of good conversations for which no other conversation has a reply."""


@dataclass(frozen=True, slots=True)
class _Reply:
    context: int
    asked: str
    """The user's message that it answers."""
    text: str


def spoil(pairs: Iterable[EvalPair], seed: int, most: int = MOST) -> Spoiling:
    """Every reply of every good conversation, spoiled in each kind that there is for it.

    Args:
        seed: of the draws. They go by what conversations say, not by the order of the pairs.
        most: conversations that are spoiled.
    """
    found = Spoiling()
    good = _good(pairs, most, found.left_out)
    pools = _pools(replies for _, _, replies in good)
    for index, pair, replies in good:
        found.good.append(index)
        for turn in range(1, len(replies) + 1):
            foreign = _foreign(pair, replies[turn - 1], turn, pools[turn - 1], seed)
            found.no_foreign_reply += foreign is None
            for kind, text in ((FOREIGN, foreign), (CONTRAST, _contrast(pair, turn))):
                if text is not None:
                    messages = _replaced(pair.chosen, turn, text)
                    found.spoiled.append(Spoiled(index, kind, turn, len(replies), messages))
    return found


def _good(
    pairs: Iterable[EvalPair], most: int, left_out: Counter[str]
) -> list[tuple[int, EvalPair, list[_Reply]]]:
    """The good conversations with their replies, in the order of the pairs; counts what is none."""
    good: dict[int, tuple[int, EvalPair, list[_Reply]]] = {}
    for index, pair in enumerate(pairs):
        turns = split_turns(pair.chosen)
        key = content_id(pair.chosen)
        if len(turns) < 2:
            left_out["one_turn"] += 1
        elif not all(_is_turn(one) for one in turns):
            left_out["not_alternating"] += 1
        elif key in good:
            left_out["repeated"] += 1
        else:
            good[key] = index, pair, _replies(pair.chosen)
    if len(good) > most:
        left_out["beyond_the_most"] = len(good) - most
    kept = set(sorted(good)[:most])
    return [one for key, one in good.items() if key in kept]


def _is_turn(messages: list[Message]) -> bool:
    """One message of the user and one reply."""
    return [one["role"] for one in messages] == ["user", "assistant"]


def _replies(messages: list[Message]) -> list[_Reply]:
    context = conversation_hash(messages)
    return [_Reply(context, user["content"], reply["content"]) for user, reply in split_turns(messages)]


def _pools(conversations: Iterable[list[_Reply]]) -> list[list[_Reply]]:
    """The replies at each turn, in an order that goes by what they say."""
    pools: list[list[_Reply]] = []
    for replies in conversations:
        pools.extend([] for _ in range(len(replies) - len(pools)))
        for pool, reply in zip(pools, replies, strict=False):
            if reply.text.strip():
                pool.append(reply)
    return [sorted(pool, key=lambda one: content_id([one.context, one.asked, one.text])) for pool in pools]


def _foreign(pair: EvalPair, reply: _Reply, turn: int, pool: list[_Reply], seed: int) -> str | None:
    """The closest in length of a sample of other conversations' replies; None where there are none."""
    generator = random.Random(content_id(["foreign", seed, pair.chosen, turn]))
    drawn = [pool[at] for at in generator.sample(range(len(pool)), min(_DRAWS, len(pool)))]
    fit = [one for one in drawn if _is_foreign(one, reply)] or [
        one for one in pool if _is_foreign(one, reply)
    ]
    return min((one.text for one in fit[:SAMPLE]), key=lambda text: _apart(text, reply.text), default=None)


def _is_foreign(one: _Reply, reply: _Reply) -> bool:
    """Of another conversation, to another question, and in other words."""
    return (
        one.context != reply.context
        and one.asked.split() != reply.asked.split()
        and one.text.split() != reply.text.split()
    )


def _apart(one: str, other: str) -> int:
    return abs(len(one) - len(other))


def _contrast(pair: EvalPair, turn: int) -> str | None:
    """The rejected side's reply where the sides part, if it answers the same message in other words."""
    if turn != first_difference(pair.chosen, pair.rejected):
        return None
    good, bad = split_turns(pair.chosen)[turn - 1], split_turns(pair.rejected)[turn - 1 : turn]
    if not bad or not _is_turn(bad[0]) or bad[0][0] != good[0]:
        return None
    text = bad[0][1]["content"]
    return text if text.strip() and text.split() != good[1]["content"].split() else None


def _replaced(messages: list[Message], turn: int, text: str) -> list[Message]:
    at = 2 * turn - 1
    return [*messages[:at], Message(role="assistant", content=text), *messages[at + 1 :]]
