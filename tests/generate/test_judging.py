"""The judge of the pairs stage: who is asked about, what verdicts decide, and that none is made twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from music_ray.engines.base import Prompt, RequestError
from music_ray.engines.scripted import ScriptedEngine
from music_ray.errors import StageError
from music_ray.generate import judging
from music_ray.generate.judging import JudgeWorker, job_config
from music_ray.generate.pairs import run_pairs
from music_ray.jobs.metrics import Metrics
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


def test_a_judge_that_wrote_the_pairs_is_a_note(
    make_run: MakeRun, rollouts: list[Rollout], write_shard: WriteShard, judge: Callable[[Script], InProcess]
) -> None:
    judge(better("good"))
    own = {"engine": {"kind": "scripted", "model": "writer"}}
    for model, said in (("writer", 1), ("another", 0)):
        run = make_run(pairs={"judge": {"engine": {"kind": "scripted", "model": model}}}, **own)
        write_shard(run, "0001-a", rollouts)
        note = (
            "pairs.judge is writer, and so is the assistant and the user simulator and the model that writes "
            "contrasts: a model tends to like its own words; have another one judge"
        )
        assert run_pairs(run)["notes"].count(note) == said


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
