"""Engine hours and money of the rollouts, from tokens, a rate and prices; what has none stays unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from music_ray.costs import TOKEN_KINDS, endpoint_cost, engine_of_role, spent
from music_ray.planning.known import Known
from music_ray.planning.measured import MIN_ROWS, ROLES
from music_ray.planning.plan import Bounds, Plan, Quantity, add, scale


@dataclass(frozen=True)
class Forecast:
    """Sums over all rollouts of the run."""

    calls: dict[str, Bounds]
    """By role."""
    tokens: Callable[[str, tuple[str, ...]], Bounds]
    """(kind, roles) → tokens of that kind that these roles use together."""
    calls_basis: str
    tokens_basis: str


def plan_hours(known: Known, plan: Plan, forecast: Forecast) -> None:
    """Adds what engines and endpoints take, as far as it is known."""
    config = known.config
    engines = {role: engine_of_role(config, role) for role in ROLES}
    # A role's own engine is an endpoint or scripted; only the run's own may hold GPUs.
    local = tuple(role for role in ROLES if engines[role] is config.engine and not config.engine.endpoint)
    parts = []
    unknown = ""
    if any(engine.endpoint for engine in engines.values()):
        parts.append(_endpoint_cost(known, forecast))
    if local:
        seconds, basis = _engine_seconds(known, forecast, local)
        if seconds is None:
            unknown = basis
        else:
            _add_hours(known, plan, seconds, basis)
            bill = spent(seconds[1] * config.engine.gpus_per_engine, 0.0, {}, config)
            if bill.unpriced:
                unknown = f"cost of the rollouts unknown: set {', '.join(bill.unpriced)}"
            elif (price := _engine_hour(known)) is not None:
                parts.append(scale(seconds, price / 3600))
    if unknown:
        plan.notes.append(unknown)
    if parts and not unknown:
        basis = "endpoint prices" if not local else "costs"
        plan.quantities["generate.cost"] = Quantity.of(add(*parts), config.costs.currency, basis)
    elif parts:
        basis = "endpoint prices; engines not counted"
        plan.quantities["generate.endpoint_cost"] = Quantity.of(parts[0], config.costs.currency, basis)


def _add_hours(known: Known, plan: Plan, seconds: Bounds, basis: str) -> None:
    engine, used = known.config.engine, known.usage
    at_once = engine.max_engines
    plan.quantities["generate.wall_hours"] = Quantity.of(
        scale(seconds, 1 / at_once / 3600), "hours", f"{at_once} engine(s) at once; {basis}"
    )
    plan.quantities["generate.gpu_hours"] = Quantity.of(
        scale(seconds, engine.gpus_per_engine / 3600),
        "GPU hours",
        basis if engine.gpus_per_engine else "engine.gpus_per_engine is 0",
        used["gpu_seconds"] / 3600 if "gpu_seconds" in used else None,
    )


def _engine_hour(known: Known) -> float | None:
    """Price of one engine for an hour; None where nothing it holds has a price."""
    engine = known.config.engine
    return spent(3600.0 * engine.gpus_per_engine, 3600.0 * engine.cpus_per_engine, {}, known.config).cost


def _endpoint_cost(known: Known, forecast: Forecast) -> Bounds:
    """What the tokens of roles at endpoints cost."""

    def case(number: int) -> float:
        costs = (
            endpoint_cost(
                known.config,
                role,
                {kind: round(forecast.tokens(kind, (role,))[number]) for kind in TOKEN_KINDS},
            )
            for role in ROLES
        )
        return sum(cost for cost in costs if cost is not None)

    return case(0), case(1), case(2)


def _engine_seconds(known: Known, forecast: Forecast, local: tuple[str, ...]) -> tuple[Bounds | None, str]:
    """Seconds of engines for all rollouts, those that are there as they were, and the basis.

    Returns:
        (None, what to do about it) where the rate is not known.
    """
    used = known.usage.get("engine_seconds", 0.0)
    if known.rows_there >= known.num_seeds and used:
        return (used, used, used), "what the run has used"
    there = _written(known, local)
    rate = known.config.costs.tokens_per_second_per_engine
    basis = "costs.tokens_per_second_per_engine"
    if rate is None and known.measured and known.measured.is_enough and used and there:
        rate = there / used
        basis = f"{rate:,.0f} tokens/s an engine so far, start-up included"
    if rate is None:
        first = max(MIN_ROWS, known.config.generate.canary.seeds)
        return None, (
            "hours and cost of engines unknown: set costs.tokens_per_second_per_engine, or run "
            f"`music-ray generate CONFIG seeds.num_seeds={first}` first and plan again"
        )
    low, expected, high = forecast.tokens("completion", local)
    rest = max(0.0, low - there), max(0.0, expected - there), max(0.0, high - there)
    return add((used, used, used), scale(rest, 1 / rate)), basis


def _written(known: Known, roles: tuple[str, ...]) -> float:
    """Completion tokens of the rollouts that are there."""
    if known.measured is None:
        return 0.0
    return sum(float(known.measured.tokens[role, "completion"].mean()) for role in roles) * known.rows_there
