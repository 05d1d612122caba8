"""The judge's job as it is begun: under the caps of `limits`, and with a hub model at the run's commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from music_ray.errors import StageError
from music_ray.generate import judging
from music_ray.generate.budget import Budget
from music_ray.jobs.board import DRAIN
from music_ray.jobs.usage import write_usage
from music_ray.rundir import RunDir

MakeRun = Callable[..., RunDir]


class Asked:
    """Stands where the judge's job begins: keeps what it was given."""

    def __init__(self) -> None:
        self.config: Any = None
        self.watches: list[Any] = []

    def __call__(self, run: RunDir, config: Any, *arguments: Any, watches: Any, **options: Any) -> None:
        self.config, self.watches = config, list(watches)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    job = Asked()
    monkeypatch.setattr(judging, "ask_judge", job)
    return job


def record(run: RunDir, name: str, engine: Any, **used: float) -> None:
    """What a job of this run has used before."""
    write_usage(RunDir(run.config.model_copy(update={"engine": engine})), name, 1, used)


def test_the_caps_hold_for_rollouts_and_judge_together(make_run: MakeRun, asked: Asked) -> None:
    """3,600 s of two GPUs of the judge's cost 4, and 1,800 s of one GPU of the rollouts 1."""
    engine = {"kind": "scripted", "gpus_per_engine": 2}
    run = make_run(
        engine={"kind": "scripted", "gpus_per_engine": 1},
        pairs={"judge": {"engine": engine}},
        costs={"gpu_hour": 2},
        limits={"max_cost": 5},
    )
    record(run, "generate", run.config.engine, engine_seconds=1800.0)
    judging._ask(run, ("judge", "k", "shards"), ("judge", "k", "in"), 3)
    (budget,) = asked.watches
    assert budget.on_totals({"engine_seconds": 3600.0}) is None
    stop = budget.on_totals({"engine_seconds": 3700.0})
    assert str(stop.error).startswith(
        "pairs: the judge ends early: 5.11 USD are spent, limits.max_cost is 5.00: raise it, and the same "
    )
    assert stop.directive == DRAIN
    record(run, "judge-k", run.config.pairs.judge.engine, engine_seconds=3700.0)
    with pytest.raises(StageError, match=r"^pairs: the judge does not start: 5\.11 USD are spent"):
        judging._ask(run, ("judge", "k", "shards"), ("judge", "k", "in"), 3)
    with pytest.raises(StageError, match=r"^generate does not start: 5\.11 USD are spent"):
        Budget(run, "generate", run.config.engine)


def test_an_endpoint_judges_tokens_are_paid_at_its_own_prices(make_run: MakeRun, asked: Asked) -> None:
    def endpoint(price: float) -> dict[str, Any]:
        place = {"base_url": "http://127.0.0.1:1/v1", "output_price_per_million": price}
        return {"kind": "endpoint", "model": "m", "endpoint": place}

    run = make_run(
        engine=endpoint(1.0),
        user={"mode": "prompted"},
        pairs={"judge": {"engine": endpoint(100.0)}},
        limits={"max_cost": 12, "max_tokens": 3_000_000},
    )
    used = {"engine_seconds": 1.0, "assistant.completion": 2_000_000}
    record(run, "generate", run.config.engine, **used)
    judging._ask(run, ("judge", "k", "shards"), ("judge", "k", "in"), 3)
    (budget,) = asked.watches
    assert budget.on_totals({"engine_seconds": 1.0, "judge.completion": 100_000}) is None
    stop = budget.on_totals({"engine_seconds": 1.0, "judge.completion": 110_000})
    assert "13.00 USD are spent, limits.max_cost is 12.00" in str(stop.error)
    stop = budget.on_totals({"engine_seconds": 1.0, "judge.prompt": 1_000_001})
    assert "3,000,001 tokens are used, limits.max_tokens is 3,000,000" in str(stop.error)


def test_the_judge_is_asked_at_the_commit_that_the_run_goes_by(make_run: MakeRun, asked: Asked) -> None:
    from music_ray.models import DEMO_MODEL

    engine = {"kind": "vllm", "model": DEMO_MODEL, "revision": "main", "max_model_len": 2048}
    run = make_run(pairs={"judge": {"engine": engine}})
    seen = []

    def with_commit(where: RunDir, one: Any) -> Any:
        seen.append((where, one))
        return one.model_copy(update={"revision": "c0ffee"})

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(judging, "with_commit", with_commit)
        judging._ask(run, ("judge", "k", "shards"), ("judge", "k", "in"), 3)
    assert seen == [(run, run.config.pairs.judge.engine)]
    assert (asked.config.engine.revision, asked.config.engine.model) == ("c0ffee", DEMO_MODEL)
