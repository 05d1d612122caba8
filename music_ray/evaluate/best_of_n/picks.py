"""Who picks what: reward models, the oracle and chance, by turn or by whole conversation, for every N.

Equal scores go to the candidate with the lower number, for every picker alike. A candidate without a score is
not picked, and counted: a model that can't read long conversations would else seem to like short ones.
The random pick is the first candidate: candidates are exchangeable, so the first is as random as any other.
It is the same for every N, and there anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from music_ray.config import BestOfNConfig
from music_ray.engines.base import RequestError
from music_ray.evaluate.best_of_n.checkers import Checker
from music_ray.evaluate.best_of_n.tree import Conversation, Score, Tree

RANDOM, ORACLE = "random", "oracle"
"""Pickers besides the models, which are called by their digest."""
UNCHECKED = "unchecked"
"""Reason of a conversation that the checker can't say anything of."""
Judgement = Callable[[Conversation], Awaitable[Score]]


@dataclass(frozen=True, slots=True)
class Pick:
    """A conversation that one picker came to."""

    picker: str
    selection: str
    """turn or whole."""
    n: int
    """Candidates that it picked from; 1 of the random pick."""
    conversation: Conversation
    candidates: list[int]
    """What it picked, from 0: a number for each turn, or one for the whole."""
    scores: list[float]
    """The score of each of those."""
    checked: float | None
    """What the checker says of the conversation."""
    num_candidates: int
    """What it could have picked, over all its turns."""
    num_unscored: int
    """How many of these have no score, so that it could not: too long, or refused by the model's template."""


@dataclass(frozen=True, slots=True)
class _Best:
    """The best of some candidates."""

    number: int
    score: float
    num_unscored: int


@dataclass(slots=True)
class _Course:
    """A conversation, and the choices that led to it."""

    conversation: Conversation
    choices: list[_Best] = field(default_factory=list)


async def all_picks(
    tree: Tree, config: BestOfNConfig, models: Sequence[str], checker: Checker | None, answer: str | None
) -> list[Pick]:
    """The random pick, and for each selection and N those of the models and, with a checker, the oracle's.

    Raises:
        RequestError: something could not be said, or no candidate has a score; the row is an error.
        EngineDeadError: an engine is gone.
    """

    def check(conversation: Conversation) -> float | None:
        return checker(conversation, answer) if checker else None

    async def oracle(conversation: Conversation) -> Score:
        return check(conversation), UNCHECKED

    async def go(picker: str, judgement: Judgement, selection: str, n: int) -> Pick | None:
        choose = _by_turn if selection == "turn" else _whole
        try:
            course = await choose(tree, judgement, n)
        except RequestError as error:
            if picker == ORACLE and error.reason == UNCHECKED:
                return None
            raise
        return Pick(
            picker,
            selection,
            n,
            course.conversation,
            candidates=[one.number for one in course.choices],
            scores=[one.score for one in course.choices],
            checked=check(course.conversation),
            num_candidates=n * len(course.choices),
            num_unscored=sum(one.num_unscored for one in course.choices),
        )

    pickers: dict[str, Judgement] = {model: _model(tree, model) for model in models}
    if checker:
        pickers[ORACLE] = oracle
    made = [go(RANDOM, _indifferent, "turn", 1)]
    made += [
        go(picker, judgement, selection, n)
        for selection in config.selections
        for n in config.n
        for picker, judgement in pickers.items()
    ]
    tasks = [asyncio.ensure_future(one) for one in made]
    try:
        return [pick for pick in await asyncio.gather(*tasks) if pick is not None]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _model(tree: Tree, model: str) -> Judgement:
    async def score(conversation: Conversation) -> Score:
        return await tree.score(model, conversation)

    return score


async def _indifferent(conversation: Conversation) -> Score:
    return 0.0, ""


async def _by_turn(tree: Tree, judgement: Judgement, n: int) -> _Course:
    course = _Course(tree.prompt)
    for turn in range(tree.turns):
        if turn:
            course.conversation = await tree.with_question(course.conversation)
        history = course.conversation
        candidates = await asyncio.gather(*(tree.with_reply(history, number) for number in range(n)))
        best = await _best(candidates, judgement)
        course.conversation = candidates[best.number]
        course.choices.append(best)
    return course


async def _whole(tree: Tree, judgement: Judgement, n: int) -> _Course:
    candidates = await asyncio.gather(*(tree.whole(number) for number in range(n)))
    best = await _best(candidates, judgement)
    return _Course(candidates[best.number], [best])


async def _best(candidates: Sequence[Conversation], judgement: Judgement) -> _Best:
    """The best of those that have a score.

    Raises:
        RequestError: none has a score.
    """
    found = await asyncio.gather(*(judgement(one) for one in candidates))
    scored = [(score, -number) for number, (score, _) in enumerate(found) if score is not None]
    if not scored:
        raise RequestError(f"none of {len(candidates)} candidates has a score", found[0][1])
    score, number = max(scored)
    return _Best(-number, score, len(candidates) - len(scored))
