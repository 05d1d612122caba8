"""The judge of the pairs stage: who is asked about, what verdicts decide, and that none is made twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from music_ray import preflight
from music_ray.config.load import resolve_config
from music_ray.engines.base import Prompt, RequestError
from music_ray.engines.scripted import ScriptedEngine
from music_ray.errors import ConfigError, InputError, StageError
from music_ray.generate import judging
from music_ray.generate.budget import Budget
from music_ray.generate.judging import JudgeWorker, job_config
from music_ray.generate.pairs import run_pairs
from music_ray.jobs.board import DRAIN
from music_ray.jobs.metrics import Metrics
from music_ray.jobs.usage import read_usage, write_usage
from music_ray.judge.rows import VERDICT_SCHEMA, verdict_folder
from music_ray.rundir import RunDir
from music_ray.schema import Rollout, to_table

MakeRun = Callable[..., RunDir]
MakeRollout = Callable[..., Rollout]
WriteShard = Callable[[RunDir, str, list[Rollout]], None]
Script = Callable[[str, str], str]
OPENING = ["A first answer.", "And then?"]
SCRIPTED = {"engine": {"kind": "scripted"}}


class InProcess:
    """Stands where the job on Ray stands: the same worker, with a script of its own, the same shards.

    The script gets what conversations A and B end with, and returns the judge's answer.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[list[int]] = []
        """The seed ids of each job."""
        self.calls = 0

    def __call__(self, run: RunDir, shards: Any, questions: Any, total: int) -> None:
        engine = ScriptedEngine(self._answer)
        worker = JudgeWorker(job_config(run.config), 1, {}, Metrics("t"), engine=engine)
        rows = list(run.read_rows(*questions))
        assert len(rows) == total
        self.asked.append([row["seed_id"] for row in rows])

        async def work() -> list[Any]:
            return [await worker.work(row) for row in rows]

        verdicts = to_table(asyncio.run(work()), VERDICT_SCHEMA)
        run.write_table(verdicts, *shards, f"e{len(run.parquet_files(*shards)):04d}-x.parquet")
        self.calls += worker.counts().get("calls", 0)

    def _answer(self, prompt: Prompt, sampling: Any, seed: int) -> str:
        parts = prompt.messages[0]["content"].split("\n# ")
        a, b = (next(one for one in parts if one.startswith(f"Conversation {name}")) for name in "AB")
        return self.script(a, b)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], InProcess]:
    """judge(script): every job from now on is worked on here, with this script."""

    def use(script: Script) -> InProcess:
        job = InProcess(script)
        monkeypatch.setattr(judging, "_ask", job)
        return job

    return use


def better(word: str) -> Script:
    """A judge that finds the conversation with the word better, and knows no other difference."""

    def script(a: str, b: str) -> str:
        if (word in a) == (word in b):
            return "<verdict>tie</verdict>"
        return f"{word} decides.\n<verdict>{'A' if word in a else 'B'}</verdict>"

    return script


def verdicts_of(run: RunDir) -> list[dict[str, Any]]:
    return sorted(run.read_rows("judge"), key=lambda row: row["seed_id"])


def reasons_of(run: RunDir) -> dict[int, tuple[str, str]]:
    lines = (json.loads(line) for line in run.read_text("pairs", "gates.jsonl").splitlines())
    return {line["id"]: (line["reason"], line["detail"]) for line in lines}


@pytest.fixture
def rollouts(make_rollout: MakeRollout) -> list[Rollout]:
    """1 to 3: better, worse and no different by the word 'good'; 4 fails a gate, 5 is an error row."""
    return [
        make_rollout(1, [*OPENING, "The good old town of York."], [*OPENING, "Rabbits eat grass."]),
        make_rollout(2, [*OPENING, "Nobody knows about clouds."], [*OPENING, "A good cloud is white."]),
        make_rollout(3, [*OPENING, "Seven hills were climbed."], [*OPENING, "Bread needs an oven."]),
        make_rollout(4, [*OPENING, ""], [*OPENING, "Something good."]),
        make_rollout(5, [], [], status="error", reason="context_full"),
    ]


def test_a_pair_whose_rejected_side_wins_in_both_orders_is_refused(
    make_run: MakeRun, rollouts: list[Rollout], write_shard: WriteShard, judge: Callable[[Script], InProcess]
) -> None:
    run = make_run(pairs={"judge": SCRIPTED})
    write_shard(run, "0001-a", rollouts)
    job = judge(better("good"))
    result = run_pairs(run)
    assert job.asked == [[1, 2, 3]], "what fails another gate is not asked about"
    counts = result["counts"]
    assert counts["judge"] == {
        "chosen": 1, "rejected": 1, "tie": 1, "invalid": 0, "errors": 0,
    }  # fmt: skip
    assert counts["refused"] == {"context_full": 1, "empty": 1, "judge_disagrees": 1}
    assert counts["gates"]["judge_disagrees"] == {
        "on": True, "why_off": "", "refused": 1, "would_refuse_alone": 1,
    }  # fmt: skip
    assert reasons_of(run)[2] == (
        "judge_disagrees",
        "the judge prefers the rejected side (chosen first: B, chosen second: A)",
    )
    assert [(row["first"], row["second"], row["outcome"]) for row in verdicts_of(run)] == [
        ("A", "B", "chosen"),
        ("B", "A", "rejected"),
        ("tie", "tie", "tie"),
    ]
    assert verdicts_of(run)[0]["first_answer"] == "good decides.\n<verdict>A</verdict>"
    tokens = {
        kind: sum(row[f"{kind}_tokens"] for row in verdicts_of(run))
        for kind in ("prompt", "cached", "completion")
    }
    folder = "/".join(verdict_folder(run.config.pairs.judge.engine, run.config.pairs.judge.sampling))
    assert result["judge"] == {
        "engine": "scripted",
        "model": run.config.pairs.judge.engine.model,
        "verdicts": folder,
        "tokens": tokens,
        "first_position_wins": 0.5,
        "agreement_in_both_orders": 1.0,
    }
    assert result["notes"][:2] == [
        "the judge says the same in both orders of 100% of the pairs",
        "50% of the judge's winners are the conversation that it was shown first",
    ]
    assert not run.exists("judge", folder.split("/")[1], "in")


def test_an_unchanged_judge_is_asked_nothing_again(
    make_run: MakeRun, rollouts: list[Rollout], write_shard: WriteShard, judge: Callable[[Script], InProcess]
) -> None:
    run = make_run(pairs={"judge": SCRIPTED})
    write_shard(run, "0001-a", rollouts[:2])
    job = judge(better("good"))
    first = run_pairs(run)
    assert (job.asked, job.calls) == ([[1, 2]], 4)
    assert run_pairs(run) == first
    stricter = make_run(pairs={"judge": {**SCRIPTED, "require": "wins", "on_invalid": "refuse"}})
    run_pairs(stricter)
    assert job.calls == 4
    write_shard(run, "0002-a", rollouts[2:])
    assert run_pairs(stricter)["counts"]["refused"]["judge_disagrees"] == 2
    assert (job.asked, job.calls) == ([[1, 2], [3]], 6), "a grown run asks about the new rollouts alone"
    another = make_run(pairs={"judge": {**SCRIPTED, "sampling": {"max_tokens": 99}}})
    run_pairs(another)
    assert job.asked[2:] == [[1, 2, 3]] and len(verdicts_of(run)) == 6, "another judge has its own verdicts"
    run_pairs(run)
    assert job.calls == 12


def test_a_verdict_is_on_a_text_and_not_on_a_number(
    make_run: MakeRun,
    make_rollout: MakeRollout,
    write_shard: WriteShard,
    judge: Callable[[Script], InProcess],
) -> None:
    """Whoever empties rollouts/ and makes others from the same seeds gets new verdicts."""
    run = make_run(pairs={"judge": SCRIPTED})
    job = judge(better("good"))
    write_shard(run, "0001-a", [make_rollout(1)])
    assert run_pairs(run)["counts"]["judge"]["chosen"] == 1
    run.clear("rollouts")
    write_shard(run, "0001-a", [make_rollout(1, rejected=[*OPENING, "good", "good?", "Also good."])])
    run_pairs(run)
    assert job.asked == [[1], [1]]


@pytest.mark.parametrize(
    ("answer", "policy", "accepted", "counts"),
    [
        # Whoever always names A contradicts itself in every pair: ties, and the position wins always.
        ("<verdict>A</verdict>", {}, 3, {"tie": 3, "first_position_wins": 1.0}),
        ("<verdict>A</verdict>", {}, 3, {"agreement_in_both_orders": 0.0, "rejected": 0}),
        ("<verdict>B</verdict>", {}, 3, {"tie": 3, "first_position_wins": 0.0}),
        ("<verdict>B</verdict>", {}, 3, {"agreement_in_both_orders": 0.0, "rejected": 0}),
        ("<verdict>A</verdict>", {"require": "wins"}, 0, {"tie": 3}),
        ("<verdict>tie</verdict>", {}, 3, {"tie": 3, "first_position_wins": None}),
        ("I like A.", {}, 3, {"invalid": 3, "tie": 0, "agreement_in_both_orders": None}),
        ("I like A.", {"require": "wins"}, 3, {"invalid": 3}),
        ("I like A.", {"on_invalid": "refuse"}, 0, {"invalid": 3}),
    ],
)  # fmt: skip
def test_what_is_no_win_for_either_side(
    make_run: MakeRun,
    rollouts: list[Rollout],
    write_shard: WriteShard,
    judge: Callable[[Script], InProcess],
    answer: str,
    policy: dict[str, str],
    accepted: int,
    counts: dict[str, Any],
) -> None:
    run = make_run(pairs={"judge": {**SCRIPTED, **policy}})
    write_shard(run, "0001-a", rollouts[:3])
    job = judge(lambda a, b: answer)
    result = run_pairs(run)
    assert result["counts"]["accepted"] == accepted
    said = result["counts"]["judge"] | result["judge"]
    assert said | counts == said
    assert job.calls == (12 if "invalid" in counts else 6), "an answer without a verdict is drawn twice"


def test_pairs_without_an_answer_are_kept_counted_and_asked_about_again_on_demand(
    make_run: MakeRun, rollouts: list[Rollout], write_shard: WriteShard, judge: Callable[[Script], InProcess]
) -> None:
    def fail(a: str, b: str) -> str:
        raise RequestError("429 for ever", "rate_limited")

    run = make_run(pairs={"judge": {**SCRIPTED, "require": "wins", "on_invalid": "refuse"}})
    write_shard(run, "0001-a", rollouts[:2])
    judge(fail)
    result = run_pairs(run)
    assert (result["counts"]["accepted"], result["counts"]["judge"]["errors"]) == (2, 2)
    assert (
        "2 rollouts have no verdict of the judge, whose engine did not answer (rate_limited 2), and are not "
        f"refused for it: see the `detail` column in {result['judge']['verdicts']}"
    ) in result["notes"]
    assert {row["detail"] for row in verdicts_of(run)} == {"429 for ever"}
    job = judge(better("good"))
    assert run_pairs(run) == result and job.asked == []
    again = make_run(pairs=run.config.pairs.model_dump(), generate={"retry_errors": True})
    counts = run_pairs(again)["counts"]
    assert job.asked == [[1, 2]]
    assert (counts["accepted"], counts["judge"]["errors"], counts["judge"]["rejected"]) == (1, 0, 1)
    judge(fail)
    write_shard(run, "0002-a", rollouts[2:3])
    assert run_pairs(again)["counts"]["judge"]["errors"] == 1, "what fails again is not asked about for ever"


def test_a_near_duplicate_that_takes_a_refused_pairs_place_is_judged_too(
    make_run: MakeRun,
    make_rollout: MakeRollout,
    write_shard: WriteShard,
    judge: Callable[[Script], InProcess],
) -> None:
    reply = "This is an answer that was asked for, with a few words more than it needs to have"
    first = make_rollout(1, [*OPENING, f"{reply}."], [*OPENING, "A good cloud is white."])
    second = make_rollout(2, [*OPENING, f"{reply}!"], [*OPENING, "Rabbits eat grass."])
    run = make_run(pairs={"judge": SCRIPTED})
    write_shard(run, "0001-a", [first, second])
    job = judge(better("good"))
    counts = run_pairs(run)["counts"]
    assert job.asked == [[1], [2]], "only then, as it cost nothing before"
    assert (counts["accepted"], counts["refused"]) == (1, {"judge_disagrees": 1})
    assert [row["seed_id"] for row in run.read_rows("pairs")] == [2]


def test_pairs_without_a_verdict_at_the_end_are_said(
    make_run: MakeRun, rollouts: list[Rollout], write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(pairs={"judge": SCRIPTED})
    write_shard(run, "0001-a", rollouts)
    monkeypatch.setattr(judging, "_ask", lambda *arguments: None)
    with pytest.raises(StageError, match=r"^3 of 3 pairs have no verdict in .*: the same command goes on"):
        run_pairs(run)


@pytest.mark.parametrize("pairs", [{}, {"judge": SCRIPTED, "gates": {"judge_disagrees": False}}])
def test_without_a_judge_nobody_is_asked(
    make_run: MakeRun,
    rollouts: list[Rollout],
    write_shard: WriteShard,
    judge: Callable[[Script], InProcess],
    pairs: dict[str, Any],
) -> None:
    run = make_run(pairs=pairs)
    write_shard(run, "0001-a", rollouts)
    job = judge(better("good"))
    result = run_pairs(run)
    assert job.asked == [] and result["counts"]["accepted"] == 3
    assert "judge" not in result and "judge" not in result["counts"] and not run.exists("judge")


@pytest.mark.parametrize("pairs", [{}, {"judge": SCRIPTED}])
def test_ray_is_not_loaded_where_nobody_is_asked(
    make_run: MakeRun, make_rollout: MakeRollout, write_shard: WriteShard, pairs: dict[str, Any]
) -> None:
    run = make_run(pairs=pairs)
    rollout = make_rollout(1, status="error", reason="context_full") if pairs else make_rollout(1)
    write_shard(run, "0001-a", [rollout])
    code = (
        "import sys; from music_ray.config import RunConfig; from music_ray.rundir import RunDir\n"
        "from music_ray.generate.pairs import run_pairs\n"
        "run_pairs(RunDir(RunConfig.model_validate_json(sys.argv[1])))\n"
        "assert not {'ray', 'torch', 'vllm', 'openai'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", code, run.config.model_dump_json()]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


# -- configuration ---------------------------------------------------------------------------------


def test_the_judges_engine_is_the_jobs_and_no_role_must_fit_it() -> None:
    engine = {"kind": "scripted", "max_model_len": 200, "model": "small", "gpus_per_engine": 2}
    config = resolve_config(
        {
            "name": "x",
            "seed": 5,
            "assistant": {"sampling": {"max_tokens": 3000}},
            "pairs": {"judge": {"engine": engine, "sampling": {"max_tokens": 100}}},
            "generate": {"turns": 2, "flush_rows": 3},
            "limits": {"max_cost": 3},
            "costs": {"cpu_hour": 1, "gpu_hour": 2},
        }
    )
    job = type(config).model_validate_json(job_config(config).model_dump_json())
    assert job.engine == config.pairs.judge.engine
    assert (job.name, job.seed, job.runs_dir, job.generate, job.pairs) == (
        "x", 5, config.runs_dir, config.generate, config.pairs,
    )  # fmt: skip


def test_one_sampling_key_keeps_the_judges_other_defaults() -> None:
    sampling = resolve_config(
        {"name": "x", "pairs": {"judge": {"sampling": {"max_tokens": 9}}}}
    ).pairs.judge.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.0, 1.0, 9)


def test_a_cap_on_money_needs_the_judges_prices_too() -> None:
    values: dict[str, Any] = {
        "name": "x",
        "limits": {"max_cost": 3},
        "costs": {"cpu_hour": 1},
        "pairs": {"judge": {"engine": {"kind": "scripted", "gpus_per_engine": 1}}},
    }
    with pytest.raises(
        ConfigError, match=r"limits\.max_cost \(3\) can't be watched without the price of a GPU"
    ):
        resolve_config(values)
    values["pairs"]["gates"] = {"judge_disagrees": False}
    resolve_config(values)


def test_what_an_engine_cannot_be_is_refused_under_its_own_name() -> None:
    engine = {"kind": "scripted", "min_engines": 2}
    with pytest.raises(ConfigError, match=r"pairs\.judge\.engine\.min_engines \(2\) exceeds pairs\.judge"):
        resolve_config({"name": "x", "pairs": {"judge": {"engine": engine}}})
    small = {"kind": "scripted", "max_model_len": 512}
    with pytest.raises(ConfigError, match=r"reply of 512 tokens does not fit pairs\.judge\.engine\."):
        resolve_config({"name": "x", "pairs": {"judge": {"engine": small}}})


@pytest.mark.parametrize(
    "pairs",
    [
        {"judge": SCRIPTED},
        {"judge": {"require": "wins"}},
        {"judge": {"sampling": {"max_tokens": 9}}},
        {"gates": {"judge_disagrees": False}},
    ],
)
def test_another_judge_makes_the_pairs_stage_alone_out_of_date(make_run: MakeRun, pairs: Any) -> None:
    before, after = make_run(), make_run(pairs=pairs)
    stages = ("seeds", "generate", "pairs", "mix", "train", "evaluate")
    assert [one for one in stages if before.fingerprint(one) != after.fingerprint(one)] == ["pairs"]
    urls = (
        make_run(
            pairs={"judge": {"engine": {"kind": "endpoint", "endpoint": {"base_url": f"http://{host}/v1"}}}}
        )
        for host in ("a", "b")
    )
    assert len({run.fingerprint("pairs") for run in urls}) == 1, "where a model is served decides nothing"


def test_a_judge_that_does_not_answer_is_found_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    where = {"base_url": "https://judge.invalid/v1", "api_key_env": "JUDGE_KEY"}
    engine = {"kind": "endpoint", "model": "m", "endpoint": where}

    def check(*stages: str, **gates: bool) -> None:
        config = {"name": "x", "runs_dir": "/tmp", "pairs": {"judge": {"engine": engine}, "gates": gates}}
        preflight.check(resolve_config(config), stages)

    with pytest.raises(InputError, match="JUDGE_KEY"):
        check("pairs")
    check("mix")
    check("pairs", judge_disagrees=False)
    engine = {"kind": "vllm", "model": "./no-such-model"}
    with pytest.raises(InputError, match="no-such-model"):
        check("pairs")


# -- the caps of limits, and the commit of a hub model ----------------------------------------------


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


# -- on Ray ----------------------------------------------------------------------------------------


def jobs_of(run: RunDir) -> list[str]:
    """The records of jobs that were begun."""
    return sorted(path.name for path in Path(run.path("usage")).iterdir())


@pytest.mark.slow
def test_verdicts_come_through_a_real_ray_exactly_once(
    make_run: MakeRun, make_rollout: MakeRollout, write_shard: WriteShard
) -> None:
    """The scripted engine's own words hold no verdict: every pair is invalid, after four calls."""
    import ray

    def run_of(**judge: Any) -> RunDir:
        return make_run(
            pairs={"judge": {**SCRIPTED, **judge}, "gates": {"near_duplicate": False}},
            generate={"conversations_per_task": 4, "flush_rows": 8, "flush_seconds": 0.3},
            ray={"num_cpus": 2},
        )

    run = run_of()
    write_shard(run, "0001-a", [make_rollout(number) for number in range(40)])
    try:
        result = run_pairs(run)
        assert result["counts"]["accepted"] == 40 and result["counts"]["judge"]["invalid"] == 40
        rows = list(run.read_rows("judge"))
        assert len(rows) == len({row["id"] for row in rows}) == 40
        assert {(row["status"], row["first"], row["second"], row["engine"]) for row in rows} == {
            ("ok", "invalid", "invalid", "scripted")
        }
        assert sum(row["completion_tokens"] for row in rows) == result["judge"]["tokens"]["completion"] > 0
        name = "-".join(result["judge"]["verdicts"].split("/")[:-1])
        used = read_usage(run, name)
        assert used["engine_seconds"] > 0 and jobs_of(run) == [f"{name}-e0001.json"]

        again = run_pairs(run_of(on_invalid="refuse"))
        assert again["counts"]["refused"] == {"judge_disagrees": 40}
        assert (jobs_of(run), read_usage(run, name)) == ([f"{name}-e0001.json"], used), "nobody was asked"

        write_shard(run, "0002-a", [make_rollout(number) for number in range(40, 50)])
        assert run_pairs(run)["counts"]["judge"]["invalid"] == 50
        assert jobs_of(run) == [f"{name}-e0001.json", f"{name}-e0002.json"], "each start's usage is kept"
        added = [row for row in run.read_rows("judge") if row["id"] not in {one["id"] for one in rows}]
        assert len(list(run.read_rows("judge"))) == 50 and len(added) == 10
    finally:
        ray.shutdown()
