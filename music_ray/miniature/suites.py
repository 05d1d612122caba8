"""The evaluation suites S1 to S7: pairs that differ in one reply and in what follows from it.

The two sides have the same user messages (but for the moods of S6), and one wrong reply makes the rejected
side; later replies are right given their own history, the final one too. Error positions are balanced
exactly. Suites of contrast errors and of choices are mirrored: the same replies stand once on the chosen and
once on the rejected side, under another user message. In the others, lengths are exchangeable (balance.py).

    S1  contrast errors before the final turn
    S2  errors that a language model made by itself, corrected (from its samples)
    S3  errors that a contrast does not make
    S4  choices that are right alone, but contradict an earlier one
    S4_control  choices that repeat an earlier one where that is not to be had
    S5  S1 in longer conversations
    S6  S1 where the user complains of the right reply and is content with the wrong one
    S6_control  the same the other way round: complaints where they belong
    S7  the final turn, all errors: what D holds

This module does not know models or scores.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from music_ray.miniature.balance import Exchangeable
from music_ray.miniature.check import Turn, examine, wrong_turns
from music_ray.miniature.language import COMPLAINTS, CONTENT, tokens
from music_ray.miniature.mistakes import OUTSIDE_CONTRAST, mistaken, modify_instruction
from music_ray.miniature.parts import seeds, split_of_part
from music_ray.miniature.place import Place, is_sound, reply_at, spoil
from music_ray.miniature.reading import replace_request, with_mood
from music_ray.miniature.world import WORLD, World, conversation, read_letters
from music_ray.schema import Message, content_id, count_user_turns

_Sides = tuple[list[Message], list[Message]]
"""Chosen and rejected."""
Cell = tuple[int, int]
"""Number of turns, and the turn of the error."""

EARLY: tuple[Cell, ...] = ((3, 1), (3, 2), (4, 1), (4, 2), (4, 3))
FINAL: tuple[Cell, ...] = ((1, 1), (2, 2), (3, 3), (4, 4))
CHOICES: tuple[Cell, ...] = ((3, 2), (4, 2), (4, 3))
LONG: tuple[Cell, ...] = tuple((turns, turn) for turns in (6, 8) for turn in range(1, turns))

OTHER_KINDS = {**dict.fromkeys(OUTSIDE_CONTRAST, 1.0), "forgotten_constraint": 0.5, "unasked_constraint": 0.5}
"""What S3 gets wrong, with weights. The two about constraints are each other's mirror image."""
RARE = "self_contradiction"
"""Possible in so few conversations that it is made wherever it is, up to its share."""
ALL_KINDS = {**OTHER_KINDS, "contrast": 6.0, RARE: 0.4}
"""What final turns of D and S7 get wrong: half of it contrasts."""


@dataclass(frozen=True, slots=True)
class SuitePair:
    """Two conversations of which the judge prefers the first."""

    suite: str
    seed: int
    """Of the conversation: pairs of one seed are one cluster. S2: of no meaning, the sample's number."""
    error_turn: int
    """The first turn, from 1, in which the rejected side is wrong; the sides part there."""
    mistake: str
    operation: str
    """What the user asked for at that turn."""
    chosen: list[Message]
    rejected: list[Message]

    @property
    def num_turns(self) -> int:
        """User messages of either side."""
        return count_user_turns(self.chosen)

    def row(self) -> dict[str, Any]:
        """As a row of a file that data.sources and `music-ray evaluate` read."""
        return {
            "id": f"{self.suite}-{content_id([self.chosen, self.rejected]):016x}",
            "source": self.suite,
            "seed": self.seed,
            "num_turns": self.num_turns,
            "error_turn": self.error_turn,
            "mistake": self.mistake,
            "operation": self.operation,
            "chosen": self.chosen,
            "rejected": self.rejected,
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """What pairs are asked for."""

    suite: str
    """What rows name as their source."""
    part: str
    """Whose seeds and lists are used (parts.py)."""
    quota: dict[Cell, int]
    run: int
    world: World

    def conversations(
        self,
        kept: Exchangeable[SuitePair],
        operations: Callable[[Cell, random.Random], dict[int, str]] | None = None,
    ) -> Iterator[tuple[int, Cell, list[Message], random.Random]]:
        """Seed, cell, conversation and random source, for the cells that still want pairs in turn.

        No two conversations have the same user messages.

        Args:
            operations: what is to be asked for at some turns.
        """
        cells = list(self.quota)
        known: set[int] = set()
        split = split_of_part(self.part)
        for seed in seeds(self.part, self.run):
            cells = [cell for cell in cells if not kept.is_full(cell)]
            if not cells:
                return
            cell = cells[seed % len(cells)]
            rng = random.Random(f"mistake {self.suite} {seed}")
            asked = operations(cell, rng) if operations else None
            messages = conversation(seed, cell[0], split=split, world=self.world, operations=asked)
            asked_before = len(known)
            known.add(content_id([message["content"] for message in messages[::2]]))
            if len(known) > asked_before:
                yield seed, cell, messages, rng
        raise ValueError(f"{self.suite}: the seeds of run {self.run} give too few pairs: ask for fewer")


def build(
    suite: str, num_pairs: int = 5_000, *, run: int = 0, world: World = WORLD, dev: bool = False
) -> list[SuitePair]:
    """A suite; as many pairs in each cell (number of turns, error turn), and num_pairs or a few more.

    Args:
        suite: one of SUITES.
        run: 0 to 99; runs share no conversation seed.
        dev: pairs of the same kind with other seeds and lists, to look at while anything is still chosen.

    Raises:
        ValueError: S2, which needs a language model's samples (natural.py), or no suite at all.
    """
    if suite == "S2":
        raise ValueError("S2 is made of a language model's samples: use natural.natural_errors(samples)")
    if suite not in SUITES:
        raise ValueError(f"no suite {suite!r}: one of {', '.join((*SUITES, 'S2'))}")
    maker, cells = SUITES[suite]
    per_cell = 2 * math.ceil(num_pairs / (2 * len(cells)))
    batch = Batch(suite, "dev" if dev else suite, dict.fromkeys(cells, per_cell), run, world)
    pairs = maker(batch)
    random.Random(f"order {suite} {run}").shuffle(pairs)
    return pairs


def exchangeable_pairs(batch: Batch, kinds: dict[str, float]) -> list[SuitePair]:
    """Pairs with one mistake each, of lengths that do not tell the sides apart.

    Args:
        kinds: mistakes with weights; they come in these shares as far as lengths can be balanced.
    """
    kept: Exchangeable[SuitePair] = Exchangeable(dict(batch.quota))
    for seed, cell, messages, rng in batch.conversations(kept):
        wanted = _wanted_kinds(kept, cell, kinds)
        # Drawn before it is known which are possible here: else each kind would get the requests at which
        # the others are impossible.
        kind = rng.choices(wanted, [kinds[one] for one in wanted])[0]
        for one in (RARE, kind) if RARE in wanted else (kind,):
            reply = mistaken(one, messages, cell[1], rng, world=batch.world)
            if reply is not None:
                rejected = spoil(messages, cell[1], reply)
                pair = _pair(batch, seed, cell[1], one, messages, rejected)
                if pair is not None:
                    kept.offer(cell, one, *counts(messages, rejected), pair)
                break
    return kept.all()


def _wanted_kinds(kept: Exchangeable[SuitePair], cell: Cell, kinds: dict[str, float]) -> list[str]:
    """The kinds of which a cell has not enough: half as many again as its share, for some can't be had there.

    For the last pairs every kind is wanted: of some none finds its mirror image among few.
    """
    quota, total = kept.quota[cell], sum(kinds.values())
    if len(kept.kept[cell]) > 0.95 * quota - 4:
        return list(kinds)
    return [
        kind for kind, weight in kinds.items() if kept.num_kept[cell, kind] < 1.5 * quota * weight / total
    ]


Counts = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int]]


def counts(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Counts, Counts]:
    """What of a pair's replies may not tell the sides apart, and its mirror image.

    Of each side the tokens, those of the last reply, and the letters that follow their like; of both, how
    many more replies of the rejected side are in upper case or end with a mark.
    """
    (one, one_style), (other, other_style) = map(_counted, (chosen, rejected))
    more = (other_style[0] - one_style[0], other_style[1] - one_style[1])
    return (one, other, more), (other, one, (-more[0], -more[1]))


def _counted(messages: Sequence[Message]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    said = replies(messages)
    repeats = sum(one == other for reply in said for one, other in pairwise(read_letters(reply)))
    style = sum(reply.isupper() for reply in said), sum(reply.endswith("!") for reply in said)
    lengths = [len(tokens(reply)) for reply in said]
    return (sum(lengths), lengths[-1], repeats), style


def replies(messages: Sequence[Message]) -> list[str]:
    """The assistant's messages."""
    return [message["content"] for message in messages if message["role"] == "assistant"]


def _early_slips(batch: Batch) -> list[SuitePair]:
    """S3."""
    return exchangeable_pairs(batch, OTHER_KINDS)


def _final_turns(batch: Batch) -> list[SuitePair]:
    """S7."""
    return exchangeable_pairs(batch, ALL_KINDS)


def _mirrored_contrasts(batch: Batch) -> list[SuitePair]:
    """S1, S5 and S6: once the user asks what the conversation asks, once what the contrast answers."""
    kept: Exchangeable[SuitePair] = Exchangeable(dict(batch.quota))
    for seed, cell, messages, rng in batch.conversations(kept):
        turn = cell[1]
        modified = modify_instruction(messages, turn, rng, world=batch.world)
        if modified is None:
            continue
        other = [message.copy() for message in messages]
        asked = other[reply_at(turn) - 1]
        asked["content"] = replace_request(asked["content"], modified.text)
        sides = (messages, spoil(messages, turn, modified.reply))
        reply = messages[reply_at(turn)]["content"]
        mirrored = (spoil(other, turn, modified.reply), spoil(other, turn, reply))
        if [replies(side) for side in sides] != [replies(side) for side in reversed(mirrored)]:
            continue
        pairs = _both(batch, seed, turn, "contrast", sides, mirrored)
        if batch.suite in _MOODS:
            mood = rng.randrange(len(CONTENT))
            pairs = [_with_moods(pair, *(words[mood] for words in _MOODS[batch.suite])) for pair in pairs]
        kept.keep_all(cell, pairs)
    return kept.all()


def _contradictions(batch: Batch) -> list[SuitePair]:
    """S4: which of two letters is chosen first is mirrored, and with it what contradicts that."""
    kept: Exchangeable[SuitePair] = Exchangeable(dict(batch.quota))
    for seed, cell, messages, rng in batch.conversations(kept, _two_choices):
        second = cell[1]
        other = mistaken("self_contradiction", messages, second, rng, world=batch.world)
        if other is None:
            continue
        first = next(turn.number for turn in examine(messages) if _is_choice(turn))
        begun_otherwise = spoil(messages, first, other)
        if begun_otherwise[reply_at(second)]["content"] != other:  # the second choice follows the first
            continue
        sides = (messages, spoil(messages, second, other))
        chosen = messages[reply_at(second)]["content"]
        mirrored = (begun_otherwise, spoil(begun_otherwise, second, chosen))
        kept.keep_all(cell, _both(batch, seed, second, "self_contradiction", sides, mirrored))
    return kept.all()


def _repeated_choices(batch: Batch) -> list[SuitePair]:
    """S4_control: the second choice is among other letters, so that the first letter again is wrong."""
    kept: Exchangeable[SuitePair] = Exchangeable(dict(batch.quota))
    for seed, cell, messages, _ in batch.conversations(kept, _two_choices):
        first = next(turn for turn in examine(messages) if _is_choice(turn))
        place = Place.of(messages, cell[1])
        if place is not None and place.is_usable(first.reply, batch.world):
            rejected = spoil(messages, cell[1], first.reply)
            pair = _pair(batch, seed, cell[1], "repeated_choice", messages, rejected)
            if pair is not None and read_letters(first.reply) not in place.expectation.x:
                kept.keep_all(cell, [pair])
    return kept.all()


def _two_choices(cell: Cell, rng: random.Random) -> dict[int, str]:
    return {rng.randrange(1, cell[1]): "favourite", cell[1]: "favourite"}


def _is_choice(turn: Turn) -> bool:
    return turn.ask is not None and turn.ask.instruction.operation == "favourite"


def _both(
    batch: Batch, seed: int, turn: int, mistake: str, sides: _Sides, mirrored: _Sides
) -> list[SuitePair]:
    """Both pairs of a mirrored comparison; none where one of them does not hold."""
    one = _pair(batch, seed, turn, mistake, *sides)
    other = _pair(batch, seed, turn, mistake, *mirrored)
    return [] if one is None or other is None else [one, other]


def _pair(
    batch: Batch, seed: int, turn: int, mistake: str, chosen: list[Message], rejected: list[Message]
) -> SuitePair | None:
    """A pair, if the judge finds exactly the one error and both sides make sense."""
    if wrong_turns(chosen) or wrong_turns(rejected) != [turn]:
        return None
    if not (is_sound(chosen, batch.world) and is_sound(rejected, batch.world)):
        return None
    ask = examine(chosen)[turn - 1].ask
    assert ask is not None
    return SuitePair(batch.suite, seed, turn, mistake, ask.instruction.operation, chosen, rejected)


def _with_moods(pair: SuitePair, of_chosen: str, of_rejected: str) -> SuitePair:
    """The pair in which the user says something of the reply at the error turn."""
    after = reply_at(pair.error_turn) + 1
    sides = []
    for messages, mood in ((pair.chosen, of_chosen), (pair.rejected, of_rejected)):
        copied = [message.copy() for message in messages]
        copied[after]["content"] = with_mood(copied[after]["content"], mood)
        sides.append(copied)
    return replace(pair, chosen=sides[0], rejected=sides[1])


_MOODS = {"S6": (COMPLAINTS, CONTENT), "S6_control": (CONTENT, COMPLAINTS)}
"""What users say of the right and of the wrong reply."""

SUITES: dict[str, tuple[Callable[[Batch], list[SuitePair]], tuple[Cell, ...]]] = {
    "S1": (_mirrored_contrasts, EARLY),
    "S3": (_early_slips, EARLY),
    "S4": (_contradictions, CHOICES),
    "S4_control": (_repeated_choices, CHOICES),
    "S5": (_mirrored_contrasts, LONG),
    "S6": (_mirrored_contrasts, EARLY),
    "S6_control": (_mirrored_contrasts, EARLY),
    "S7": (_final_turns, FINAL),
}
"""How each is made, and its cells."""
