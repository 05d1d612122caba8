"""What an actor counts as begun, without Ray: its worker and its metrics are stood in for."""

import asyncio

import pytest

from music_ray.engines.base import EngineDeadError
from music_ray.jobs.actor import JobActor
from music_ray.jobs.board import DRAIN, GO_ON
from music_ray.jobs.job import Job
from tests.jobs.workers import TestWorker


class Unheard:
    """Stands where the board stands: nobody listens."""

    def __init__(self):
        self.report = self

    def remote(self, *arguments):
        pass


class Counted:
    def __init__(self):
        self.begun = 0

    def row_begun(self):
        self.begun += 1


@pytest.fixture
def actor(monkeypatch):
    def start(self, job, config_json):
        self._metrics, self._in_engine = Counted(), set()
        self._worker = TestWorker(None, 1, {"deadly": [3], "how": "declared"}, None)
        self._directive, self._dying = GO_ON, False

    monkeypatch.setattr(JobActor, "_start", start)
    return JobActor(Job("test", "rows", "a:b", (), None, 1), "{}", board=Unheard())


def test_a_row_is_begun_when_it_goes_to_the_engine_whatever_becomes_of_it(actor) -> None:
    assert asyncio.run(actor._work({"id": 1})).detail == "made"
    with pytest.raises(EngineDeadError):
        asyncio.run(actor._work({"id": 3}))
    assert actor._metrics.begun == 2


def test_a_row_that_nobody_wants_any_more_is_not_begun(actor) -> None:
    actor._directive = DRAIN
    assert asyncio.run(actor._work({"id": 1})) is None
    assert actor._metrics.begun == 0
