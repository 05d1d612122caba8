"""Who picks what: shared candidates, ties, and what happens where something has no score."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from music_ray.config import BestOfNConfig
from music_ray.engines.base import EngineDeadError, RequestError
from music_ray.evaluate.best_of_n.picks import all_picks
from music_ray.evaluate.best_of_n.tree import Tree
from music_ray.schema import content_id
from tests.evaluate.best_of_n.rules import talk


class Speakers:
    """Says what a function says, and keeps what it was asked."""

    def __init__(self, reply=None, question=None) -> None:
        self._reply = reply or (lambda history, number: f"r{number} of {content_id(history) % 1000}")
        self._question = question or (lambda history: f"q of {content_id(history) % 1000}")
        self.asked: list[tuple[int, int | str]] = []

    async def reply(self, history, number):
        await asyncio.sleep(0)
        self.asked.append((content_id(history), number))
        return self._said(self._reply(history, number))

    async def question(self, history):
        await asyncio.sleep(0)
        self.asked.append((content_id(history), "question"))
        return self._said(self._question(history))

    def _said(self, text):
        return SimpleNamespace(text=text, prompt_tokens=5, cached_tokens=2, completion_tokens=1)


class Scorer:
    """Scores a whole conversation by a function; None is a conversation that is too long."""

    def __init__(self, score) -> None:
        self._score = score
        self.asked: list[int] = []

    async def work(self, row):
        await asyncio.sleep(0)
        self.asked.append(content_id(row["messages"]))
        score = self._score(row["messages"])
        return SimpleNamespace(score=score, reason="" if score is not None else "over_length")

    def counts(self):
        return {}


def pick(speakers, scorers, *, checker=None, answer=None, turns=2, **section):
    async def work():
        tree = Tree(talk("prompt"), turns, speakers, scorers)
        try:
            config = BestOfNConfig(turns=turns, **section)
            return tree, await all_picks(tree, config, list(scorers), checker, answer)
        finally:
            await tree.close()

    tree, picks = asyncio.run(work())
    return tree, {(one.picker, one.selection, one.n): one for one in picks}


def by_number(*scores):
    """A scorer that knows which candidate was given last; texts are 'rK of …'."""
    return Scorer(lambda messages: scores[int(messages[-1]["content"][1])])


def test_a_model_picks_what_it_scores_highest_among_the_first_n() -> None:
    speakers = Speakers()
    _, picks = pick(speakers, {"m": by_number(0.1, 0.4, 0.2, 0.9)}, n=[2, 4])
    assert picks["m", "turn", 2].candidates == [1, 1] and picks["m", "turn", 2].scores == [0.4, 0.4]
    assert picks["m", "turn", 4].candidates == [3, 3] and picks["m", "turn", 4].scores == [0.9, 0.9]
    assert picks["m", "whole", 2].candidates == [1] and picks["m", "whole", 4].candidates == [3]
    assert picks["random", "turn", 1].candidates == [0, 0]
    assert len(picks) == 5
    conversation = picks["m", "turn", 4].conversation
    assert [one["role"] for one in conversation] == ["user", "assistant", "user", "assistant"]
    assert conversation == picks["m", "whole", 4].conversation, "always the same number: the same branch"


def test_contenders_share_candidates_while_their_picks_agree() -> None:
    speakers = Speakers()
    same = {"a": by_number(0, 1, 0, 0), "b": by_number(0, 2, 1, 0)}
    tree, picks = pick(speakers, same, n=[4], selection=["turn"])
    assert picks["a", "turn", 4].conversation == picks["b", "turn", 4].conversation
    # Four candidates to the prompt, four after candidate 1, and the random pick's own second reply.
    assert tree.said == {"replies": 9, "questions": 2}
    assert max(Counter(speakers.asked).values()) == 1, "nothing is asked twice"
    assert tree.tokens == {"prompt_tokens": 55, "cached_tokens": 22, "completion_tokens": 11}
    scored = same["a"].asked
    assert len(scored) == len(set(scored)) == 8


def test_after_picks_part_each_has_candidates_of_its_own() -> None:
    parted = {"a": by_number(0, 1, 0, 0), "b": by_number(0, 0, 1, 0)}
    tree, picks = pick(Speakers(), parted, n=[4], selection=["turn"])
    a, b = picks["a", "turn", 4].conversation, picks["b", "turn", 4].conversation
    assert a[:1] == b[:1] and a[1] != b[1] and a[2] != b[2] and a[3] != b[3]
    assert tree.said == {"replies": 13, "questions": 3}


def test_a_whole_conversation_is_judged_at_its_end_alone() -> None:
    """The best last reply stands after the worst first one: only the selection of wholes finds it."""
    texts = {("prompt", 0): "fine", ("prompt", 1): "poor"}

    def reply(history, number):
        if len(history) == 1:
            return texts["prompt", number]
        return {"fine": "dull", "poor": "superb"}[history[1]["content"]]

    worth = {"fine": 1.0, "poor": 0.0, "dull": 1.0, "superb": 5.0}
    scorer = Scorer(lambda messages: worth[messages[-1]["content"]])
    _, picks = pick(Speakers(reply), {"m": scorer}, n=[2])
    assert [one["content"] for one in picks["m", "turn", 2].conversation][1::2] == ["fine", "dull"]
    assert [one["content"] for one in picks["m", "whole", 2].conversation][1::2] == ["poor", "superb"]


def test_equal_scores_go_to_the_first_candidate() -> None:
    _, picks = pick(Speakers(), {"m": by_number(*[1.0] * 8)}, n=[8])
    assert picks["m", "turn", 8].candidates == [0, 0]
    assert picks["m", "turn", 8].conversation == picks["random", "turn", 1].conversation


def test_a_candidate_without_a_score_is_not_picked() -> None:
    _, picks = pick(Speakers(), {"m": by_number(None, -3.0, None, None)}, n=[4], selection=["turn"])
    assert picks["m", "turn", 4].candidates == [1, 1]
    assert (picks["m", "turn", 4].num_unscored, picks["m", "turn", 4].num_candidates) == (6, 8)
    assert (picks["random", "turn", 1].num_unscored, picks["random", "turn", 1].num_candidates) == (0, 2)
    with pytest.raises(RequestError, match="none of 2 candidates has a score") as caught:
        pick(Speakers(), {"m": by_number(None, None)}, n=[2])
    assert caught.value.reason == "over_length"


def test_candidates_without_a_score_are_counted_once_for_each_choice() -> None:
    _, picks = pick(Speakers(), {"m": by_number(1.0, None, 2.0, None)}, n=[2, 3, 4])
    counted = {key[1:]: (one.num_unscored, one.num_candidates) for key, one in picks.items() if key[0] == "m"}
    assert counted == {
        ("turn", 2): (2, 4), ("turn", 3): (2, 6), ("turn", 4): (4, 8),
        ("whole", 2): (1, 2), ("whole", 3): (1, 3), ("whole", 4): (2, 4),
    }  # fmt: skip


def test_the_oracle_picks_by_the_checker_and_is_absent_where_it_knows_nothing() -> None:
    def checker(messages, answer):
        return None if answer is None else float(messages[-1]["content"].startswith(answer))

    _, picks = pick(Speakers(), {"m": by_number(1, 0, 0)}, checker=checker, answer="r2", n=[2, 3], turns=1)
    assert picks["oracle", "turn", 3].candidates == [2] and picks["oracle", "turn", 3].checked == 1.0
    assert picks["oracle", "turn", 2].candidates == [0], "the best of two wrong ones is the first"
    assert [picks[key].checked for key in (("m", "turn", 3), ("random", "turn", 1))] == [0.0, 0.0]
    assert not [key for key in picks if key[1] == "whole"], "of one turn, a turn is the whole"
    _, picks = pick(Speakers(), {"m": by_number(1, 0, 0)}, checker=checker, n=[2])
    assert {key[0] for key in picks} == {"m", "random"} and picks["m", "turn", 2].checked is None


@pytest.mark.parametrize("error", [RequestError("no", "rate_limited"), EngineDeadError("gone")])
def test_what_can_not_be_said_ends_the_row_and_leaves_nothing_running(error) -> None:
    def reply(history, number):
        if number == 3:
            raise error
        return f"r{number}"

    async def work():
        speakers = Speakers(reply)
        tree = Tree(talk("prompt"), 3, speakers, {"m": by_number(*range(8))})
        with pytest.raises(type(error)):
            try:
                await all_picks(tree, BestOfNConfig(), ["m"], None, None)
            finally:
                await tree.close()
        return len(asyncio.all_tasks()), len(speakers.asked)

    running, asked = asyncio.run(work())
    assert running == 1 and asked < 40
