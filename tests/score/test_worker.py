"""One conversation in, one row out, whatever happens; the scorer is scripted."""

import asyncio
from pathlib import Path

import pytest

from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.engines.base import EngineDeadError, RequestError
from music_ray.jobs.metrics import Metrics
from music_ray.score.scorers import Scored
from music_ray.score.worker import ScoreWorker
from tests.reward.conftest import conversation, make_tokenizer


class Scripted:
    """Scores a conversation by its length; longer ones meet trouble."""

    def describe(self) -> str:
        return "scripted"

    async def score(self, token_ids: list[int]) -> Scored:
        if len(token_ids) == 12:
            raise RequestError("no 12s today")
        if len(token_ids) == 13:
            raise EngineDeadError("gone")
        return Scored(float("nan") if len(token_ids) == 14 else len(token_ids) / 2, cached_tokens=3)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    one_token = {"sampling": {"max_tokens": 1}}
    values = {"name": "t", "engine": {"model": str(folder), "max_model_len": 64}}
    return resolve_config(values | {"assistant": one_token, "user": one_token, "contrast": one_token})


def work(config: RunConfig, messages: list, reason: str = "", detail: str = ""):
    worker = ScoreWorker(config, 1, {}, Metrics("t"), scorer=Scripted())
    row = {"id": 6, "messages": messages, "reason": reason, "detail": detail}
    return worker, asyncio.run(worker.work(row))


def test_a_score_with_its_accounts(config: RunConfig) -> None:
    worker, row = work(config, conversation("a", "b"))
    # <bos>, then <start_of_turn> role word <end_of_turn> for each message
    assert (row.id, row.status, row.reason, row.score, row.num_tokens) == (6, "ok", "", 4.5, 9)
    assert worker.counts() == {"calls": 1, "prompt": 9, "cached": 3}


@pytest.mark.parametrize(
    ("messages", "reason", "detail", "num_tokens"),
    [
        (conversation("a", "b " * 60), "over_length", "68 tokens exceed engine.max_model_len (64)", 68),
        (conversation("a", "b")[::-1], "template_refused", "roles must alternate", 0),
        (conversation("a", "b c a b"), "request_refused", "no 12s today", 12),
        (conversation("a", "b c a b c a"), "not_finite", "the model gave nan", 14),
    ],
)
def test_what_has_no_score_says_why(config: RunConfig, messages, reason, detail, num_tokens) -> None:
    _, row = work(config, messages)
    assert (row.status, row.reason, row.detail) == ("error", reason, detail)
    assert (row.score, row.num_tokens) == (None, num_tokens)


def test_what_was_unreadable_from_the_start_costs_no_call(config: RunConfig) -> None:
    worker, row = work(config, [], "not_json", "line 3")
    assert (row.status, row.reason, row.detail) == ("error", "not_json", "line 3")
    assert worker.counts() == {}


def test_a_dead_engine_decides_nothing(config: RunConfig) -> None:
    with pytest.raises(EngineDeadError):
        work(config, conversation("a", "b c a b c"))
