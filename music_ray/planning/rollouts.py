"""The plan of the generate and pairs stages: calls, tokens, memory, accepted pairs.

What that costs is the business of hours.py, and the judge that of judge.py.
"""

from __future__ import annotations

import numpy as np

from music_ray.config import RunConfig
from music_ray.costs import TOKEN_KINDS
from music_ray.jobs.room import expected_places
from music_ray.memory.gpus import GIB
from music_ray.memory.model_size import model_size
from music_ray.planning.calls import (
    CPU_BLOCK,
    GPU_BLOCK,
    Lengths,
    PlannedCall,
    expected_calls,
    plan_rollout,
    schedules,
)
from music_ray.planning.hours import Forecast, plan_hours
from music_ray.planning.judge import plan_judge
from music_ray.planning.known import Known
from music_ray.planning.lengths import fills, planned_lengths
from music_ray.planning.measured import MIN_ROWS, ROLES, Measured, extrapolate, extrapolate_share
from music_ray.planning.plan import Bounds, Plan, Quantity, scale


def plan_rollouts(known: Known, plan: Plan) -> None:
    """Adds generate.*, pairs.* and judge.* to the plan."""
    measured = known.measured if known.measured and known.measured.is_enough else None
    forecast = _from_rows(known.num_seeds, measured) if measured else _from_lengths(known)
    quantities = plan.quantities
    quantities["seeds.context_tokens"] = Quantity.exactly(
        known.seeds.mean, "tokens a seed", known.seeds.basis
    )
    quantities["generate.rollouts"] = Quantity.exactly(
        known.num_seeds, "rollouts", "one row for each seed", known.rows_there or None
    )
    for role in ROLES:
        there = float(known.measured.calls[role].mean() * known.rows_there) if known.measured else None
        quantities[f"generate.calls.{role}"] = Quantity.of(
            forecast.calls[role], "calls", forecast.calls_basis, there
        )
    for kind in TOKEN_KINDS:
        quantities[f"generate.{kind}_tokens"] = Quantity.of(
            forecast.tokens(kind, ROLES), "tokens", forecast.tokens_basis, _there(known, kind)
        )
    if known.rows_there and not measured:
        plan.notes.append(
            f"{known.rows_there} rollouts are there, too few to plan by: from {MIN_ROWS} on they take the "
            "place of costs.reply_fill"
        )
    _plan_memory(known, plan)
    plan_hours(known, plan, forecast)
    _plan_pairs(known, plan)
    plan_judge(known, plan)


def _from_rows(num_seeds: int, measured: Measured) -> Forecast:
    def whole(per_row: np.ndarray) -> Bounds:
        return extrapolate(per_row, measured.num_rows, num_seeds)

    def tokens(kind: str, roles: tuple[str, ...]) -> Bounds:
        return whole(np.sum([measured.tokens[role, kind] for role in roles], axis=0))

    calls = {role: whole(per_row) for role, per_row in measured.calls.items()}
    return Forecast(calls, tokens, measured.basis, measured.basis)


def _from_lengths(known: Known) -> Forecast:
    """From the configuration: texts that fill half of reply_fill, reply_fill, and all of max_tokens."""
    fill = known.config.costs.reply_fill
    low, expected, high = (
        _per_rollout(known, planned_lengths(known.config, known.seeds, one)) for one in fills(fill)
    )

    def tokens(kind: str, roles: tuple[str, ...]) -> Bounds:
        one, two, three = (sum(case[role, kind] for role in roles) for case in (low, expected, high))
        return scale((one, two, three), known.num_seeds)

    calls = expected_calls(known.config)
    return Forecast(
        calls={role: scale((calls[role],) * 3, known.num_seeds) for role in ROLES},
        tokens=tokens,
        calls_basis="contrast.mode and contrast.schedule; redraws not foreseen",
        tokens_basis=f"costs.reply_fill ({fill:g}), a guess",
    )


def _per_rollout(known: Known, lengths: Lengths) -> dict[tuple[str, str], float]:
    """Tokens by role and kind of one rollout, as expected over the schedule."""
    tokens = {(role, kind): 0.0 for role in ROLES for kind in TOKEN_KINDS}
    block = GPU_BLOCK if known.config.engine.gpus_per_engine else CPU_BLOCK
    for probability, spoiled in schedules(known.config):
        for call in plan_rollout(known.config, spoiled, lengths, block):
            for kind in TOKEN_KINDS:
                tokens[call.role, kind] += probability * getattr(call, f"{kind}_tokens")
    return tokens


def _there(known: Known, kind: str) -> float | None:
    if known.measured is None:
        return None
    return sum(float(known.measured.tokens[role, kind].mean()) for role in ROLES) * known.rows_there


# -- memory ----------------------------------------------------------------------------------------


def _plan_memory(known: Known, plan: Plan) -> None:
    """Key-value memory of one engine, and whether the longest rollouts fit the engine."""
    config = known.config
    expected, longest = (_largest(known, fill) for fill in (config.costs.reply_fill, 1.0))
    engine = config.engine
    if engine.kind != "scripted" and longest > engine.max_model_len and engine.endpoint is None:
        plan.notes.append(
            f"the longest rollouts need up to {longest:,.0f} tokens, engine.max_model_len is "
            f"{engine.max_model_len:,}: they end early with the reason context_full"
        )
    if engine.kind != "vllm":
        return
    size = model_size(engine.model, engine.revision)
    if size is None:
        plan.notes.append(
            f"key-value memory unknown: {engine.model} has no config.json on this machine that says its size"
        )
        return
    dtype = ("" if engine.gpus_per_engine else "float32") if engine.dtype == "auto" else engine.dtype
    places = expected_places(engine, {})
    at_once = min(places, 2 * config.generate.rows_in_flight(places))
    gib = size.kv_bytes(dtype) * at_once / GIB
    basis = f"{at_once} requests at once, prefixes that they share counted for each"
    if engine.gpus_per_engine and engine.max_num_seqs is None:
        basis += "; how many an engine takes is known when it is up"
    need = Quantity(gib * expected / 2, gib * expected, gib * longest, "GiB an engine", basis)
    plan.quantities["generate.kv_gib"] = need
    if not engine.gpus_per_engine and need.expected > engine.kv_cache_gib:
        plan.notes.append(
            f"{at_once} requests at once want {need.expected:.1f} GiB of key-value memory, "
            f"engine.kv_cache_gib is {engine.kv_cache_gib:g}: some will wait; raise it, or lower "
            "engine.max_num_seqs"
        )


def _largest(known: Known, fill: float) -> float:
    """Tokens of the largest call of a rollout from a long seed (99th percentile)."""
    lengths = planned_lengths(known.config, known.seeds, fill)
    extra = float(np.quantile(known.seeds.tokens, 0.99)) - known.seeds.mean if fill == 1.0 else 0.0
    spoiled = max((turns for _, turns in schedules(known.config)), key=len)
    calls: list[PlannedCall] = plan_rollout(known.config, spoiled, lengths)
    return max(call.prompt_tokens + call.completion_tokens for call in calls) + extra


# -- pairs -----------------------------------------------------------------------------------------


def _plan_pairs(known: Known, plan: Plan) -> None:
    """How many rollouts pass the gates."""
    share, sample, basis = _acceptance(known)
    number = extrapolate_share(share, sample, known.rows_there, known.num_seeds)
    accepted = known.counts("pairs").get("accepted") if known.fits else None
    plan.quantities["pairs.accepted"] = Quantity.of(number, "pairs", basis, accepted)


def _acceptance(known: Known) -> tuple[float, int, str]:
    """Share of rollouts that pass the gates, the rows it was measured on (0: a guess), and its basis."""
    counts = known.counts("pairs") if known.fits else {}
    if rollouts := counts.get("rollouts"):
        return counts["accepted"] / rollouts, rollouts, f"the pairs stage: {counts['accepted']} of {rollouts}"
    if seeds := known.canary.get("seeds"):
        share = float(known.canary["acceptance"])
        return share, seeds, f"the canary: {share:.0%} of {seeds}"
    ok = known.measured.ok_share if known.measured and known.measured.is_enough else 1.0
    guess = known.config.costs.acceptance
    return guess * ok, 0, f"costs.acceptance ({guess:g}), a guess"


def conversation_lengths(known: Known) -> tuple[np.ndarray, str]:
    """Tokens of MUSIC conversations at their end: a sample, and its basis."""
    if known.measured is not None and known.measured.is_enough and len(known.measured.conversation):
        return known.measured.conversation, known.measured.basis
    config: RunConfig = known.config
    lengths = planned_lengths(config, known.seeds, config.costs.reply_fill)
    turns = config.generate.turns
    grown = turns * lengths.reply + (turns - 1) * lengths.question
    return known.seeds.tokens + grown, f"{known.seeds.basis}; costs.reply_fill, a guess"
