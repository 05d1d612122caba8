"""Ways to be wrong, each with a name.

A mistake takes a conversation, a turn and a random source, and gives the wrong reply to that turn; None
where it is impossible. What it gives is judged wrong, and is wrong in no way that could be seen without
reading the request (Place.is_usable). `place.spoil` puts it into the conversation.

    contrast              follows another request exactly (modify_instruction)
    off_by_one            one letter, number or count too high or too low
    dropped_item          one letter is missing
    duplicated_item       one letter stands once more, anywhere
    swapped_neighbours    two letters beside each other have changed places
    stale_reference       does what is asked with an older list
    forgotten_constraint  does not keep what turn 1 asked of every reply
    unasked_constraint    keeps one that nobody asked for: the other's mirror image
    self_contradiction    a choice that is right alone but contradicts an earlier one

This module does not know suites, nor which side of a pair it writes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from music_ray.miniature.language import (
    MAX_NUMBER,
    Constraint,
    Instruction,
    Source,
    render_instruction,
)
from music_ray.miniature.place import Place, reply_at
from music_ray.miniature.world import (
    WORLD,
    Split,
    World,
    apply,
    conversation,
    draw_operation,
    is_sensible,
    read_letters,
    shifted,
    styled,
    written,
)
from music_ray.schema import Message

_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Modified:
    """Another request, and the right reply to it."""

    instruction: Instruction
    text: str
    """The request alone, in words."""
    reply: str


def mistaken(
    name: str, messages: Sequence[Message], turn: int, rng: random.Random, *, world: World = WORLD
) -> str | None:
    """The wrong reply that a mistake gives at a turn; None where it is impossible.

    Args:
        name: one of MISTAKES.
        turn: counted from 1.
    """
    place = Place.of(messages, turn)
    if place is None:
        return None
    for _ in range(_ATTEMPTS):
        reply = MISTAKES[name](place, rng, world)
        if reply is not None and place.is_usable(reply, world) and _is_of_its_kind(name, place, reply):
            return reply
    return None


def modify_instruction(
    messages: Sequence[Message], turn: int, rng: random.Random, *, world: World = WORLD
) -> Modified | None:
    """Another request about the same letters, or the same about others, and its right reply.

    The right reply to it is wrong for what the user really asked. None where none was found.
    """
    place = Place.of(messages, turn)
    return None if place is None else _modified(place, rng, world)


def foreign_reply(
    messages: Sequence[Message],
    turn: int,
    rng: random.Random,
    *,
    split: Split = "train",
    world: World = WORLD,
) -> str | None:
    """The reply of another conversation at the same turn: a contrast that needs no language model."""
    place = Place.of(messages, turn)
    donor = conversation(rng.randrange(2**62), turn, split=split, world=world)
    reply = donor[reply_at(turn)]["content"]
    return reply if place is not None and place.is_usable(reply, world) else None


def _is_of_its_kind(name: str, place: Place, reply: str) -> bool:
    """Whether a mistake other than a contrast gives a list where a list is right, of two letters at least."""
    return name == "contrast" or not place.is_list or len(read_letters(reply)) > 1


def _contrast(place: Place, rng: random.Random, world: World) -> str | None:
    modified = _modified(place, rng, world)
    return None if modified is None else modified.reply


def _modified(place: Place, rng: random.Random, world: World) -> Modified | None:
    for _ in range(3 * _ATTEMPTS):
        instruction = _another(place, rng, world)
        if instruction is None or (place.ask.name and instruction.operation in ("count", "favourite")):
            continue
        ask = replace(place.ask, instruction=instruction)
        expectation = place.state.expectation(ask)
        if expectation is None or not is_sensible(
            ask, expectation, place.state.constraint, world.max_letters
        ):
            continue
        reply = rng.choice(expectation.options)
        if place.is_usable(reply, world):
            return Modified(instruction, render_instruction(instruction, rng), reply)
    return None


def _another(place: Place, rng: random.Random, world: World) -> Instruction | None:
    """Another operation, or less often the same with something else changed; it may make no sense here."""
    asked = place.ask.instruction
    sources = [Source("name", name) for name in place.state.names]
    if place.state.last:
        sources.append(Source("last"))
    others = [source for source in sources if source not in (asked.x, asked.y)]
    if rng.random() < 0.3:
        if asked.operation == "first":
            return replace(asked, k=rng.choice([k for k in (2, 3, 4) if k != asked.k]))
        if asked.y is not None and rng.random() < 0.5:
            return replace(asked, x=asked.y, y=asked.x)
        return replace(asked, x=rng.choice(others)) if others else None
    operation = draw_operation(rng, world)
    if operation == asked.operation or (operation == "favourite" and asked.x.kind != "list"):
        return None
    if operation == "join":
        if not others:
            return None
        first, second = rng.sample((asked.x, rng.choice(others)), 2)
        return Instruction("join", first, second)
    return Instruction(operation, asked.x, k=rng.randint(2, 4) if operation == "first" else 0)


def _off_by_one(place: Place, rng: random.Random, world: World) -> str | None:
    by = rng.choice((-1, 1))
    if isinstance(place.plain, int):
        number = place.plain + by
        return styled(number, place.constraint) if 0 < number <= MAX_NUMBER else None
    instruction = place.ask.instruction
    if instruction.operation == "first" and rng.random() < 0.5:
        return written(place.expectation.x[: instruction.k + by], place.constraint)
    letters = place.letters
    at = rng.randrange(len(letters))
    moved = letters[:at] + shifted(letters[at], by) + letters[at + 1 :]
    # In a choice, a letter that could be chosen would be no slip.
    if instruction.operation == "favourite" and moved in place.expectation.x:
        return None
    return styled(moved, place.constraint)


def _dropped_item(place: Place, rng: random.Random, world: World) -> str | None:
    if not place.is_list:
        return None
    at = rng.randrange(len(place.letters))
    return styled(place.letters[:at] + place.letters[at + 1 :], place.constraint)


def _duplicated_item(place: Place, rng: random.Random, world: World) -> str | None:
    if not place.is_list:
        return None
    letters = place.letters
    at = rng.randrange(len(letters) + 1)
    return styled(letters[:at] + rng.choice(letters) + letters[at:], place.constraint)


def _swapped_neighbours(place: Place, rng: random.Random, world: World) -> str | None:
    letters = place.letters
    places = [at for at in range(len(letters) - 1) if letters[at] != letters[at + 1]]
    if not place.is_list or not places:
        return None
    at = rng.choice(places)
    return styled(letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :], place.constraint)


def _stale_reference(place: Place, rng: random.Random, world: World) -> str | None:
    if place.operation == "favourite":
        return None
    x, y = place.expectation.x, place.expectation.y
    older = [letters for letters in place.older_lists if len(letters) > 1 and letters not in (x, y)]
    return written(apply(place.ask.instruction, rng.choice(older), y), place.constraint) if older else None


def _forgotten_constraint(place: Place, rng: random.Random, world: World) -> str | None:
    constraint, result = place.constraint, place.expectation.result
    if constraint is None:
        return None
    if constraint.kind != "never":
        return styled(place.plain, None)
    if place.operation == "favourite":
        return constraint.letter if constraint.letter in place.expectation.x else None
    return styled(result, None) if isinstance(result, str) and constraint.letter in result else None


def _unasked_constraint(place: Place, rng: random.Random, world: World) -> str | None:
    kept = place.constraint.kind if place.constraint is not None else ""
    kinds = [kind for kind in ("upper", "mark") if kind != kept]
    if kept in ("upper", "mark"):  # both, for the one of turn 1 is still kept
        return styled(place.plain, Constraint("upper")) + "!"
    return styled(place.plain, Constraint(rng.choice(kinds)))  # type: ignore[arg-type]


def _self_contradiction(place: Place, rng: random.Random, world: World) -> str | None:
    if place.operation != "favourite":
        return None
    forbidden = "" if place.constraint is None else place.constraint.letter
    others = sorted({*place.expectation.x} - {*str(place.expectation.result), forbidden})
    return styled(rng.choice(others), place.constraint) if others else None


MISTAKES: dict[str, Callable[[Place, random.Random, World], str | None]] = {
    "contrast": _contrast,
    "off_by_one": _off_by_one,
    "dropped_item": _dropped_item,
    "duplicated_item": _duplicated_item,
    "swapped_neighbours": _swapped_neighbours,
    "stale_reference": _stale_reference,
    "forgotten_constraint": _forgotten_constraint,
    "unasked_constraint": _unasked_constraint,
    "self_contradiction": _self_contradiction,
}
OUTSIDE_CONTRAST = tuple(name for name in MISTAKES if name not in ("contrast", "self_contradiction"))
"""What following another request exactly does not give, except by chance."""
