"""What is trained on: the seed preferences D, and the corpus of the small language model.

D's pairs differ in the final turn alone. The corpus teaches one model to play the user, to play the
assistant, and to follow the contrast prompt. All of it is of the training split: no list and no seed of a
suite is in it. This module does not know models or results.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from music_ray.errors import InputError
from music_ray.miniature.language import CONTRAST_TEMPLATE
from music_ray.miniature.mistakes import foreign_reply, modify_instruction
from music_ray.miniature.parts import seeds, split_of_part
from music_ray.miniature.place import reply_at, spoil
from music_ray.miniature.suites import ALL_KINDS, FINAL, Batch, Cell, exchangeable_pairs
from music_ray.miniature.world import WORLD, World, conversation
from music_ray.prompts import own
from music_ray.schema import Message, content_id

CORPUS_TURNS = (1, 6)
"""Turns of the corpus' conversations: a seed of up to 4, and some that the rollout adds."""
CONTRAST_SHARE = 0.35
"""Share of the corpus' rows that teach the contrast prompt."""


def preference_rows(
    num_pairs: int, *, run: int = 0, world: World = WORLD, cells: Sequence[Cell] = FINAL
) -> list[dict[str, Any]]:
    """D: pairs of 1 to 4 turns, as many of each, that differ in the final reply alone.

    Args:
        num_pairs: so many or a few more.
        run: 0 to 99; runs share no conversation seed.
        cells: other numbers of turns.
    """
    per_cell = 2 * math.ceil(num_pairs / (2 * len(cells)))
    batch = Batch("preferences", "preferences", dict.fromkeys(cells, per_cell), run, world)
    pairs = exchangeable_pairs(batch, ALL_KINDS)
    random.Random(f"order preferences {run}").shuffle(pairs)
    return [pair.row() for pair in pairs]


def foreign_rows(
    num_pairs: int, num_turns: int, *, run: int = 0, world: World = WORLD
) -> list[dict[str, Any]]:
    """Pairs whose rejected side has an early reply of another conversation (arm A5); the rest is the same.

    The turns before the last are taken in turn.
    """
    rows: list[dict[str, Any]] = []
    for seed in seeds("prompts", run):
        if len(rows) == num_pairs:
            break
        messages = conversation(seed, num_turns, world=world)
        rng = random.Random(f"foreign {seed}")
        turn = 1 + len(rows) % max(num_turns - 1, 1)
        reply = foreign_reply(messages, turn, rng, world=world)
        if reply is None:
            continue
        rejected = [message.copy() for message in messages]
        rejected[reply_at(turn)]["content"] = reply
        row_id = f"foreign-{content_id([messages, rejected]):016x}"
        rows.append({"id": row_id, "source": "foreign", "chosen": messages, "rejected": rejected})
    return rows


def first_messages(part: str, count: int, *, run: int = 0, world: World = WORLD) -> list[dict[str, Any]]:
    """First user messages to go on from: rows with an `id` and a `prompt` of one message.

    Args:
        part: prompts (training split), or S2 or best_of_n (the suites').
    """
    split = split_of_part(part)
    found: dict[str, int] = {}
    for seed in seeds(part, run):
        if len(found) == count:
            break
        found.setdefault(conversation(seed, 1, split=split, world=world)[0]["content"], seed)
    return [
        {"id": f"{part}-{seed}", "prompt": [{"role": "user", "content": text}]}
        for text, seed in found.items()
    ]


def corpus_rows(count: int, *, run: int = 0, world: World = WORLD) -> Iterator[dict[str, Any]]:
    """Rows of the language model's corpus: `messages`, and `learn`, which says what of them is a target.

    learn = all: every message, the user's too; every reply is right.
    learn = last: the last message alone: what the contrast prompt asks for. The history before it may hold
    replies that followed a contrast prompt, as rejected branches do, so it is no target.
    """
    for seed in seeds("corpus", run)[:count]:
        rng = random.Random(f"corpus {seed}")
        messages = conversation(seed, rng.randint(*CORPUS_TURNS), world=world)
        contrast = contrast_example(messages, rng, world) if rng.random() < CONTRAST_SHARE else None
        yield {"messages": contrast or messages, "learn": "last" if contrast else "all"}


def contrast_example(
    messages: list[Message], rng: random.Random, world: World = WORLD
) -> list[Message] | None:
    """The prompt that contrast.mode=joint sends at the last turn of a conversation, and a good answer to it.

    In half of them earlier replies may follow a contrast as well, as with contrast.schedule=all.
    """
    num_turns = len(messages) // 2
    share = rng.choice((0.0, 0.5))
    for turn in range(1, num_turns):
        modified = modify_instruction(messages, turn, rng, world=world) if rng.random() < share else None
        if modified is not None:
            messages = spoil(messages, turn, modified.reply)
    modified = modify_instruction(messages, num_turns, rng, world=world)
    if modified is None:
        return None
    history = messages[: reply_at(num_turns)]
    prompt: Message = {"role": "user", "content": contrast_prompt(history, num_turns)}
    answer: Message = {"role": "assistant", "content": joint_answer(modified.text, modified.reply)}
    return [*history[:-1], prompt, answer]


def contrast_prompt(history: Sequence[Message], turn: int) -> str:
    """The contrast prompt after a history that ends on a user message, as generate writes it."""
    return (
        own.compiled(CONTRAST_TEMPLATE)
        .render(
            message=history[-1]["content"],
            history=list(history[:-1]),
            chosen_reply=None,
            turn=turn,
            num_turns=turn,
        )
        .strip()
    )


def joint_answer(instruction: str, reply: str) -> str:
    """What contrast.mode=joint reads (music_ray/generate/contrasts/tags.py)."""
    return f"<modified_instruction> {instruction} </modified_instruction> <reply> {reply} </reply>"


def write_rows(rows: Iterable[dict[str, Any]], path: str | Path) -> int:
    """Writes rows as Parquet or JSON lines, by the file's name; returns how many.

    Raises:
        InputError: the name ends on neither .parquet nor .jsonl.
    """
    path = Path(path)
    listed = list(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(listed), path)
    else:
        raise InputError(f"cannot write rows to {path}: name a file that ends on .parquet or .jsonl")
    return len(listed)
