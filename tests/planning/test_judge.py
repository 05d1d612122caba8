"""The judge in the plan: whom it is asked about, on how long prompts, at what price, under which caps."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from music_ray import prompts
from music_ray.jobs.usage import write_usage
from music_ray.judge.prompt import judge_prompt
from music_ray.judge.rows import VERDICT_SCHEMA, job_name, verdict_folder
from music_ray.planning.make import make_plan
from music_ray.planning.plan import Plan
from music_ray.planning.show import one_line
from music_ray.rundir import RunDir
from music_ray.schema import Message
from tests.planning.conftest import MakeRun, add_rollouts, add_seeds

LOCAL = {
    "engine": {"kind": "scripted", "gpus_per_engine": 2, "max_engines": 3},
    "sampling": {"max_tokens": 200},
}
ENDPOINT = {
    "engine": {
        "kind": "endpoint",
        "model": "m",
        "endpoint": {
            "base_url": "http://127.0.0.1:1/v1", "input_price_per_million": 2.0,
            "output_price_per_million": 10.0,
        },
    },
    "sampling": {"max_tokens": 200},
}  # fmt: skip
ROLES = ("assistant", "user", "assistant", "user")
GPUS = {"kind": "scripted", "gpus_per_engine": 2}
COSTS = {"reply_fill": 0.5, "seed_tokens": 80, "acceptance": 0.75}
RATES = {"gpu_hour": 3.0, "tokens_per_second_per_engine": 100.0, "judge_tokens_per_second_per_engine": 50.0}


def bounds(plan: Plan, name: str) -> tuple[float, float, float]:
    return plan.quantities[name].bounds


def planned(make_run: MakeRun, judge: dict[str, Any], **sections: Any) -> Plan:
    values = {"seeds": {"num_seeds": 1000}, "costs": COSTS, "pairs": {"judge": judge}}
    return make_plan(make_run(**values | sections))[0]


def template_tokens() -> float:
    one: list[Message] = [{"role": "user", "content": "x"}]
    return len(prompts.render("judge_pair.j2", shared=one, a=one, b=one)) / 4 + 8


def test_both_orders_of_every_pair_that_is_expected_to_be_accepted(make_run: MakeRun) -> None:
    plan = planned(make_run, LOCAL)
    assert bounds(plan, "judge.pairs") == (750, 750, 750)
    assert plan.quantities["judge.pairs"].basis == "as many as are accepted: costs.acceptance (0.75), a guess"
    assert bounds(plan, "judge.calls") == (1500, 1500, 1500)
    # A quarter, a half and all of 200 tokens for each answer.
    assert bounds(plan, "judge.completion_tokens") == (75_000, 150_000, 300_000)
    assert plan.quantities["judge.completion_tokens"].basis == (
        "both orders of each pair; costs.reply_fill (0.5), a guess"
    )


@pytest.mark.parametrize(
    ("schedule", "common"),
    # A turn is a reply of 50 + 5 tokens and a question of 20 + 5; the last turn has no question.
    [("all", 0), ("from_turn:2", 80), ("probability:0.5", 80 / 4 + 80 / 8)],
)
def test_what_both_sides_begin_with_is_in_a_prompt_once(
    make_run: MakeRun, schedule: str, common: float
) -> None:
    plan = planned(make_run, LOCAL, contrast={"mode": "neighbour", "schedule": schedule})
    each = template_tokens() + 80 + common + 2 * (2 * 80 - 25 - common)
    assert bounds(plan, "judge.prompt_tokens")[1] == pytest.approx(1500 * each)


def test_the_prompt_of_a_real_pair_is_as_long_as_planned() -> None:
    """Four characters a token and five for a message: within 5% of the text that the judge is sent."""
    seed = [{"role": "user", "content": "q" * 300}]
    sides = [
        [
            *seed,
            *({"role": role, "content": text * 200} for role, text in zip(ROLES, words, strict=True)),
        ]
        for words in ("abcd", "efgh")
    ]
    text = judge_prompt(*sides).messages[0]["content"]  # type: ignore[arg-type]
    plan = template_tokens() + (300 / 4 + 5) + 2 * 4 * (200 / 4 + 5)
    assert plan == pytest.approx(len(text) / 4, rel=0.05)


def test_hours_and_money_follow_from_the_judges_own_engine(make_run: MakeRun) -> None:
    plan = planned(make_run, LOCAL, costs=COSTS | RATES, engine=GPUS)
    hours = 150_000 / 50 / 3600
    assert bounds(plan, "judge.gpu_hours")[1] == pytest.approx(2 * hours)
    assert bounds(plan, "judge.wall_hours")[1] == pytest.approx(hours / 3)
    assert bounds(plan, "judge.cost")[1] == pytest.approx(2 * hours * 3.0)
    both = [bounds(plan, f"{stage}.cost")[1] for stage in ("generate", "judge")]
    assert bounds(plan, "total.cost")[1] == pytest.approx(sum(both))
    assert plan.quantities["total.cost"].basis == "generate + judge; train, evaluate not known"
    assert "1,500 calls of the judge (1,500 to 1,500)" in one_line(plan)


def test_an_endpoint_costs_its_own_prices(make_run: MakeRun) -> None:
    plan = planned(make_run, ENDPOINT)
    prompt, completion = (bounds(plan, f"judge.{kind}_tokens")[1] for kind in ("prompt", "completion"))
    assert bounds(plan, "judge.cost")[1] == pytest.approx((2 * prompt + 10 * completion) / 1e6, rel=1e-4)
    assert bounds(plan, "judge.gpu_hours") == (0, 0, 0)


def test_without_a_rate_or_a_price_there_is_no_guess(make_run: MakeRun) -> None:
    plan = planned(make_run, LOCAL)
    assert (
        "hours and cost of the judge unknown: set costs.judge_tokens_per_second_per_engine, or let it judge "
        "50 pairs and plan again"
    ) in plan.notes
    assert not {"judge.gpu_hours", "judge.cost"} & plan.quantities.keys()
    plan = planned(make_run, LOCAL, costs=COSTS | {"judge_tokens_per_second_per_engine": 50.0})
    assert "cost of the judge unknown: set costs.gpu_hour" in plan.notes
    assert "judge.gpu_hours" in plan.quantities and "judge.cost" not in plan.quantities


@pytest.mark.parametrize("pairs", [{}, {"judge": LOCAL, "gates": {"judge_disagrees": False}}])
def test_without_a_judge_there_is_no_line_of_it(make_run: MakeRun, pairs: dict[str, Any]) -> None:
    plan = planned(make_run, {}, pairs=pairs, costs=COSTS | RATES, engine=GPUS)
    assert not [name for name in plan.quantities if name.startswith("judge.")]
    assert plan.quantities["total.cost"].basis == "generate; train, evaluate not known"


# -- what is there already -------------------------------------------------------------------------


def add_verdicts(run: RunDir, number: int, **used: float) -> None:
    judge = run.config.pairs.judge
    assert judge.engine is not None
    shards = verdict_folder(judge.engine, judge.sampling)
    blank = {field.name: 0 if pa.types.is_integer(field.type) else "" for field in VERDICT_SCHEMA}
    rows = [blank | {"id": one, "status": "ok", "seconds": 0.0} for one in range(number)]
    run.write_table(pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA), *shards, "e0001-a.parquet")
    own = RunDir(run.config.model_copy(update={"engine": judge.engine}))
    write_usage(own, job_name(shards), 1, used)


def test_verdicts_that_are_there_take_the_place_of_guesses(make_run: MakeRun) -> None:
    run = make_run(pairs={"judge": LOCAL}, costs=COSTS | {"gpu_hour": 3.6}, engine=GPUS)
    add_seeds(run)
    add_rollouts(run, 60)
    run.start_stage("pairs")
    counts = {"rollouts": 60, "accepted": 30, "judge": {"chosen": 30, "rejected": 20, "errors": 5}}
    run.finish_stage("pairs", "x", 1.0, counts=counts)
    add_verdicts(run, 55, calls=220, prompt=55_000, cached=0, completion=11_000, engine_seconds=110.0)
    plan, _ = make_plan(run)
    pairs = plan.quantities["judge.pairs"]
    assert (pairs.expected, pairs.there) == (pytest.approx(110), 55)
    assert pairs.basis == "the pairs stage: 55 of 60 were judged"
    assert pairs.low < 110 < pairs.high <= 120
    # Four calls and 1,000 and 200 tokens a pair so far, at 100 tokens/s of an engine with two GPUs.
    expected = {"calls": 440, "prompt_tokens": 110_000, "completion_tokens": 22_000, "gpu_hours": 440 / 3600}
    for name, number in expected.items():
        quantity = plan.quantities[f"judge.{name}"]
        assert (quantity.expected, quantity.there) == (pytest.approx(number), pytest.approx(number / 2))
    assert plan.quantities["judge.cost"].expected == pytest.approx(440 / 3600 * 3.6)
    assert plan.quantities["judge.cost"].there == pytest.approx(220 / 3600 * 3.6)
    assert plan.quantities["judge.prompt_tokens"].basis == "55 verdicts that are there"


def test_rollouts_that_are_there_give_the_length_of_conversations(make_run: MakeRun) -> None:
    run = make_run(pairs={"judge": LOCAL}, costs=COSTS)
    add_seeds(run)
    rows = add_rollouts(run, 60)
    last = [[one for one in row.calls if (one.branch, one.role) == ("chosen", "assistant")] for row in rows]
    grown = sum(max(one.prompt_tokens + one.completion_tokens for one in calls) for calls in last) / 60 - 15
    low, expected, high = bounds(make_plan(run)[0], "judge.prompt_tokens")
    assert expected == pytest.approx(0.75 * 120 * 2 * (template_tokens() + 15 + 2 * grown))
    assert low == high == pytest.approx(expected)


# -- caps ------------------------------------------------------------------------------------------


def test_the_caps_are_compared_with_rollouts_and_judge_together(make_run: MakeRun) -> None:
    sections: dict[str, Any] = {"costs": COSTS | RATES, "engine": GPUS}
    plan = planned(make_run, LOCAL, **sections)
    parts = {
        name: [bounds(plan, f"{stage}.{name}")[1] for stage in ("generate", "judge")]
        for name in ("gpu_hours", "cost", "prompt_tokens", "completion_tokens")
    }
    tokens = sum(parts["prompt_tokens"]) + sum(parts["completion_tokens"])
    limits = {
        "max_gpu_hours": max(parts["gpu_hours"]) + 0.01,  # each alone stays below
        "max_cost": max(parts["cost"]) + 0.01,
        "max_tokens": int(tokens) - 1,
    }
    warnings = planned(make_run, LOCAL, **sections, limits=limits).warnings
    assert warnings == [
        f"the rollouts and the judge are expected to take {taken:,.6g}{unit}, limits.{name} is "
        f"{limits[name]:,.6g}: they will be stopped before the end; raise it, or lower seeds.num_seeds"
        for name, taken, unit in (
            ("max_gpu_hours", sum(parts["gpu_hours"]), " GPU hours"),
            ("max_cost", sum(parts["cost"]), " USD"),
            ("max_tokens", tokens, " tokens"),
        )
    ]
    without = planned(make_run, {}, **sections, limits={**limits, "max_tokens": 10**9})
    assert without.warnings and all(one.startswith("the rollouts may take") for one in without.warnings)


def test_a_judge_of_unknown_hours_is_said_beside_the_cap(make_run: MakeRun) -> None:
    costs = COSTS | RATES | {"judge_tokens_per_second_per_engine": None}
    plan = planned(make_run, LOCAL, costs=costs, engine=GPUS, limits={"max_gpu_hours": 0.1})
    assert "limits.max_gpu_hours (0.1) is compared with the rollouts alone: see above" in plan.notes
    assert plan.warnings[0].startswith("the rollouts are expected to take")
