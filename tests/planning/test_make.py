"""A run's plan: what it says at each point of the road, what it refuses to guess, and plan.json."""

from __future__ import annotations

import json

import pytest

from music_ray.planning.make import make_plan, write_plan
from music_ray.planning.plan import Plan
from tests.planning.conftest import NUM_PAIRS, MakeRun, add_rollouts, add_seeds

PRICED = {"gpu_hour": 3.0, "tokens_per_second_per_engine": 100.0}
GPUS = {"kind": "scripted", "gpus_per_engine": 2, "max_engines": 4, "min_engines": 1}


def expected(plan: Plan, name: str) -> float:
    return plan.quantities[name].expected


def bounds(plan: Plan, name: str) -> tuple[float, float, float]:
    return plan.quantities[name].bounds


def test_before_anything_is_there_it_goes_by_the_configuration_and_writes_nothing(make_run: MakeRun) -> None:
    run = make_run(seeds={"num_seeds": 1000}, costs={"reply_fill": 0.5, "seed_tokens": 80})
    plan = write_plan(run)
    assert not run.exists()
    assert (plan.num_seeds, plan.seeds_are_known, plan.rows_there) == (1000, True, 0)
    # Two turns, neighbour: 4 replies of 50 tokens and 2 user messages of 20, with all of max_tokens at most.
    assert bounds(plan, "generate.completion_tokens") == (120_000, 240_000, 480_000)
    assert bounds(plan, "generate.calls.assistant") == (4000, 4000, 4000)
    assert bounds(plan, "generate.calls.user") == (2000, 2000, 2000)
    assert bounds(plan, "generate.calls.contrast") == (0, 0, 0)
    assert plan.quantities["generate.completion_tokens"].basis == "costs.reply_fill (0.5), a guess"
    assert expected(plan, "pairs.accepted") == 800
    cached, prompt = (bounds(plan, f"generate.{kind}_tokens") for kind in ("cached", "prompt"))
    assert all(0 < one < other for one, other in zip(cached, prompt, strict=True))


def test_what_is_not_known_is_said_and_not_guessed(make_run: MakeRun) -> None:
    plan, _ = make_plan(make_run())
    assert (plan.num_seeds, plan.seeds_are_known) == (1000, False)
    assert plan.notes == [
        "nobody knows yet how many seeds the data gives, so this is for 1,000: run `music-ray seeds CONFIG` "
        "first (no engine is started), or set seeds.num_seeds",
        "hours and cost of engines unknown: set costs.tokens_per_second_per_engine, or run "
        "`music-ray generate CONFIG seeds.num_seeds=200` first and plan again",
        "pairs of D in the mix unknown, and with them passes and training tokens: run "
        "`music-ray seeds CONFIG` first",
    ]
    unknown = {"generate.gpu_hours", "generate.cost", "train.gpu_hours", "train.tokens", "total.cost"}
    assert not unknown & plan.quantities.keys()


def test_hours_and_money_follow_from_the_rate_and_the_price(make_run: MakeRun) -> None:
    run = make_run(seeds={"num_seeds": 1000}, costs=PRICED | {"reply_fill": 0.5}, engine=GPUS)
    plan, _ = make_plan(run)
    hours = 240_000 / 100 / 3600
    assert expected(plan, "generate.gpu_hours") == pytest.approx(2 * hours)
    assert expected(plan, "generate.wall_hours") == pytest.approx(hours / 4)
    assert expected(plan, "generate.cost") == pytest.approx(2 * hours * 3.0)
    assert expected(plan, "total.cost") == expected(plan, "generate.cost")
    assert plan.quantities["total.cost"].basis == "generate; train, evaluate not known"


def test_gpus_without_a_price_give_hours_and_no_cost(make_run: MakeRun) -> None:
    run = make_run(
        seeds={"num_seeds": 1000}, costs={"tokens_per_second_per_engine": 100.0, "cpu_hour": 1.0}, engine=GPUS
    )
    plan, _ = make_plan(run)
    assert "generate.gpu_hours" in plan.quantities
    assert "generate.cost" not in plan.quantities
    assert "cost of the rollouts unknown: set costs.gpu_hour" in plan.notes


def test_an_endpoint_costs_its_tokens(make_run: MakeRun) -> None:
    endpoint = {
        "base_url": "http://127.0.0.1:1/v1", "input_price_per_million": 2.0, "output_price_per_million": 10.0,
    }  # fmt: skip
    run = make_run(
        seeds={"num_seeds": 1000},
        engine={"kind": "endpoint", "model": "m", "endpoint": endpoint},
        user={"mode": "prompted"},
    )
    plan, _ = make_plan(run)
    prompt, completion = (expected(plan, f"generate.{kind}_tokens") for kind in ("prompt", "completion"))
    assert expected(plan, "generate.cost") == pytest.approx((2 * prompt + 10 * completion) / 1e6, rel=1e-4)
    assert expected(plan, "generate.cached_tokens") == 0
    assert "generate.gpu_hours" not in plan.quantities


def test_a_user_at_an_endpoint_is_paid_apart_from_the_engine(make_run: MakeRun) -> None:
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "output_price_per_million": 1000.0}
    user = {"mode": "prompted", "engine": {"kind": "endpoint", "model": "m", "endpoint": endpoint}}
    sections = {"seeds": {"num_seeds": 1000}, "engine": GPUS, "user": user}
    plan, _ = make_plan(make_run(**sections, costs=PRICED | {"reply_fill": 0.5}))
    replies, questions = 4 * 50 * 1000, 2 * 32 * 1000
    cost = replies / 100 / 3600 * 2 * 3.0 + questions * 1000.0 / 1e6
    assert expected(plan, "generate.cost") == pytest.approx(cost)
    plan, _ = make_plan(make_run(**sections, costs={"reply_fill": 0.5}))
    assert "generate.cost" not in plan.quantities
    assert expected(plan, "generate.endpoint_cost") == pytest.approx(questions * 1000.0 / 1e6)


def test_after_the_seeds_stage_it_knows_their_number_and_lengths(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    plan, fits = make_plan(run)
    assert (plan.num_seeds, plan.seeds_are_known, fits) == (NUM_PAIRS, True, True)
    assert expected(plan, "seeds.context_tokens") == 15
    assert plan.quantities["seeds.context_tokens"].basis == "120 seeds that are there, 4 characters a token"


@pytest.mark.parametrize(("first", "then", "planned"), [(40, 90, 90), (40, None, 120), (None, 500, 120)])
def test_growing_is_planned_from_the_seeds_that_are_there(
    make_run: MakeRun, first: int | None, then: int | None, planned: int
) -> None:
    add_seeds(make_run(seeds={"num_seeds": first}))
    plan, fits = make_plan(make_run(seeds={"num_seeds": then}))
    assert (plan.num_seeds, fits) == (planned, True)


def test_rollouts_that_are_there_take_the_place_of_guesses(make_run: MakeRun) -> None:
    run = make_run(engine=GPUS, costs={"gpu_hour": 3.6})
    add_seeds(run)
    rows = add_rollouts(run, 60, seconds=30.0)
    plan, _ = make_plan(run)
    there = sum(call.completion_tokens for row in rows for call in row.calls)
    quantity = plan.quantities["generate.completion_tokens"]
    assert quantity.there == pytest.approx(there)
    assert quantity.expected == pytest.approx(2 * there)  # 60 of 120
    assert there < quantity.low < quantity.expected < quantity.high
    assert quantity.basis == "60 rollouts that are there"
    # At the rate so far the other half takes as long as the first.
    assert expected(plan, "generate.gpu_hours") == pytest.approx(2 * 60 / 3600)
    assert plan.quantities["generate.gpu_hours"].there == pytest.approx(60 / 3600)
    assert expected(plan, "generate.cost") == pytest.approx(2 * 60 / 3600 * 3.6)


def test_when_all_is_there_the_plan_is_the_truth(make_run: MakeRun) -> None:
    run = make_run(engine=GPUS)
    add_seeds(run)
    rows = add_rollouts(run, NUM_PAIRS, seconds=90.0)
    plan, _ = make_plan(run)
    truth = sum(call.prompt_tokens for row in rows for call in row.calls)
    assert bounds(plan, "generate.prompt_tokens") == pytest.approx((truth,) * 3)
    assert bounds(plan, "generate.gpu_hours") == pytest.approx((2 * 90 / 3600,) * 3)


def test_too_few_rollouts_are_said_to_be_too_few(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    add_rollouts(run, 10)
    plan, _ = make_plan(run)
    assert plan.quantities["generate.completion_tokens"].basis == "costs.reply_fill (0.6), a guess"
    assert plan.notes[0] == (
        "10 rollouts are there, too few to plan by: from 50 on they take the place of costs.reply_fill"
    )


def test_other_settings_borrow_the_seeds_but_neither_rollouts_nor_the_folder(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    add_rollouts(run, 60, seconds=30.0)
    write_plan(run)
    before = run.read_text("plan.json")
    other = make_run(generate={"turns": 3})
    plan = write_plan(other)
    assert (plan.num_seeds, plan.seeds_are_known, plan.rows_there) == (NUM_PAIRS, True, 0)
    assert plan.notes[0] == (
        f"{run.display()} was made with other settings: its rollouts are left aside, and the plan is not "
        "written into it"
    )
    assert run.read_text("plan.json") == before


def test_acceptance_is_the_pairs_stage_s_then_the_canary_s_then_a_guess(make_run: MakeRun) -> None:
    run = make_run(costs={"acceptance": 0.9})
    add_seeds(run)
    assert bounds(make_plan(run)[0], "pairs.accepted") == pytest.approx((108, 108, 108))
    add_rollouts(run, 60)
    run.note("canary", {"seeds": 40, "acceptance": 0.75})
    plan, _ = make_plan(run)
    assert expected(plan, "pairs.accepted") == pytest.approx(90)
    assert plan.quantities["pairs.accepted"].basis == "the canary: 75% of 40"
    run.start_stage("pairs")
    run.finish_stage("pairs", "x", 1.0, counts={"rollouts": 60, "accepted": 30, "refused": {}})
    plan, _ = make_plan(run)
    low, middle, high = bounds(plan, "pairs.accepted")
    assert middle == 60 and 30 < low < middle < high < 90
    assert plan.quantities["pairs.accepted"].basis == "the pairs stage: 30 of 60"
    assert plan.quantities["pairs.accepted"].there == 30


# -- caps ------------------------------------------------------------------------------------------


def test_caps_that_the_plan_exceeds_are_named(make_run: MakeRun) -> None:
    sections = {"seeds": {"num_seeds": 1000}, "costs": PRICED | {"reply_fill": 0.5}, "engine": GPUS}
    hours = 2 * 240_000 / 100 / 3600  # 1.33, twice that at most
    plan, _ = make_plan(make_run(**sections, limits={"max_gpu_hours": 1.0, "max_cost": 5.0}))
    assert plan.warnings == [
        f"the rollouts are expected to take {hours:.6g} GPU hours, limits.max_gpu_hours is 1: they will be "
        "stopped before the end; raise it, or lower seeds.num_seeds",
        f"the rollouts may take up to {2 * hours * 3:.6g} USD, limits.max_cost is 5: they might be stopped "
        "before the end",
    ]
    plan, _ = make_plan(make_run(**sections, limits={"max_gpu_hours": 100.0, "max_tokens": 10**9}))
    assert plan.warnings == []


def test_a_cap_that_nothing_can_be_compared_with_is_said(make_run: MakeRun) -> None:
    plan, _ = make_plan(make_run(limits={"max_gpu_hours": 1.0}))
    assert "limits.max_gpu_hours (1) can't be compared with the plan: see above" in plan.notes


# -- plan.json -------------------------------------------------------------------------------------


def test_the_plan_from_before_the_rollouts_is_kept(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    write_plan(run)
    add_rollouts(run, 60)
    write_plan(run)
    document = json.loads(run.read_text("plan.json"))
    assert (document["first"]["rows_there"], document["latest"]["rows_there"]) == (0, 60)


def test_a_grown_run_has_a_new_first_plan(make_run: MakeRun) -> None:
    run = make_run(seeds={"num_seeds": 60})
    add_seeds(run)
    write_plan(run)
    add_rollouts(run, 60)
    grown = make_run(seeds={"num_seeds": 100})
    add_seeds(grown)
    write_plan(grown)
    first = json.loads(grown.read_text("plan.json"))["first"]
    assert (first["num_seeds"], first["rows_there"]) == (100, 60)


def test_a_damaged_plan_is_made_anew(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    run.write_text('{"first": ', "plan.json")
    write_plan(run)
    assert json.loads(run.read_text("plan.json"))["first"]["num_seeds"] == NUM_PAIRS


# -- the engine's room -----------------------------------------------------------------------------


def test_rollouts_that_do_not_fit_the_engine_are_foreseen(make_run: MakeRun) -> None:
    engine = {"kind": "vllm", "model": "nobody/knows", "max_model_len": 256}
    plan, _ = make_plan(make_run(seeds={"num_seeds": 10}, engine=engine))
    assert any(
        "engine.max_model_len is 256: they end early with the reason context_full" in note
        for note in plan.notes
    )
    assert "key-value memory unknown: nobody/knows has no config.json on this machine that says its size" in (
        plan.notes
    )
