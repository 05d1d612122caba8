"""The plan of the judge: how many pairs it is asked about, on how long prompts, and what that takes.

Both orders of every pair that the gates before it accept. How many these are, the pairs stage has counted;
until it has, they are as many pairs as are expected to be accepted: what the judge itself will refuse is not
foreseen, nor answers without a verdict, which are drawn once more. It does not know what verdicts decide.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from music_ray import prompts
from music_ray.config import EngineConfig
from music_ray.costs import TOKEN_KINDS, endpoint_cost, spent
from music_ray.jobs.shards import read_index
from music_ray.jobs.usage import read_usage
from music_ray.judge.prompt import TEMPLATE
from music_ray.judge.rows import job_name, verdict_folder
from music_ray.planning.calls import schedules
from music_ray.planning.known import Known
from music_ray.planning.lengths import CHARACTERS_A_TOKEN, HEADER, MARKERS, fills, planned_lengths
from music_ray.planning.measured import MIN_ROWS, extrapolate_share
from music_ray.planning.plan import Bounds, Plan, Quantity, scale

ORDERS = 2


@dataclass(frozen=True)
class _Answered:
    """What this judge has done in this run already."""

    verdicts: int = 0
    used: Counter[str] = field(default_factory=Counter)
    """As read_usage gives it."""

    @property
    def is_enough(self) -> bool:
        """Whether to plan by it."""
        return self.verdicts >= MIN_ROWS and self.used["calls"] > 0


def plan_judge(known: Known, plan: Plan) -> None:
    """Adds judge.* to the plan where a judge is named; pairs.accepted must be there."""
    judge = known.config.pairs.judge
    if judge.engine is None or not known.config.pairs.gates.judge_disagrees:
        return
    answered = _answered(known)
    pairs, basis = _asked_about(known, plan)
    quantities = plan.quantities
    quantities["judge.pairs"] = Quantity.of(pairs, "pairs", basis, answered.verdicts or None)
    each, basis = _each_pair(known, answered)
    for what, unit in (("calls", "calls"), ("prompt_tokens", "tokens"), ("completion_tokens", "tokens")):
        kind = what.removesuffix("_tokens")
        quantities[f"judge.{what}"] = Quantity.of(
            _times(pairs, each[kind]), unit, basis, answered.used[kind] or None
        )
    _add_hours_and_cost(known, plan, judge.engine, answered)


def _answered(known: Known) -> _Answered:
    judge = known.config.pairs.judge
    if not known.fits or judge.engine is None:
        return _Answered()
    shards = verdict_folder(judge.engine, judge.sampling)
    return _Answered(len(read_index(known.run, shards).ids), read_usage(known.run, job_name(shards)))


def _asked_about(known: Known, plan: Plan) -> tuple[Bounds, str]:
    """Pairs that reach the judge."""
    counts = known.counts("pairs") if known.fits else {}
    if judged := sum(counts.get("judge", {}).values()):
        rollouts = counts["rollouts"]
        number = extrapolate_share(judged / rollouts, rollouts, known.rows_there, known.num_seeds)
        return number, f"the pairs stage: {judged} of {rollouts} were judged"
    accepted = plan.quantities["pairs.accepted"]
    return accepted.bounds, f"as many as are accepted: {accepted.basis}"


def _each_pair(known: Known, answered: _Answered) -> tuple[dict[str, Bounds], str]:
    """Calls and tokens of one pair, and their basis."""
    kinds = ("calls", "prompt", "completion")
    if answered.is_enough:
        means = {kind: answered.used[kind] / answered.verdicts for kind in kinds}
        basis = f"{answered.verdicts:,} verdicts that are there"
        return {kind: (mean, mean, mean) for kind, mean in means.items()}, basis
    longest = known.config.pairs.judge.sampling.max_tokens
    shares = fills(known.config.costs.reply_fill)
    low, expected, high = (_prompt_tokens(known, share) for share in shares)
    answers = tuple(ORDERS * share * longest for share in shares)
    return {
        "calls": (ORDERS, ORDERS, ORDERS),
        "prompt": (ORDERS * low, ORDERS * expected, ORDERS * high),
        "completion": (answers[0], answers[1], answers[2]),
    }, f"both orders of each pair; costs.reply_fill ({known.config.costs.reply_fill:g}), a guess"


def _prompt_tokens(known: Known, fill: float) -> float:
    """Of one call: what the template says, what both sides begin with once, and the rest of each side.

    Where rollouts are there, conversations are as long as theirs, whatever `fill` is.
    """
    config, measured = known.config, known.measured
    turns = config.generate.turns
    lengths = planned_lengths(config, known.seeds, fill)
    turn = lengths.reply + lengths.question
    grown = turns * turn - lengths.question
    # Turns before the first contrast are the same on both sides.
    common = sum(probability * (min(spoiled) - 1) for probability, spoiled in schedules(config)) * turn
    if measured is not None and measured.is_enough and len(measured.conversation):
        longer = max(0.0, float(measured.conversation.mean()) - known.seeds.mean) / grown
        grown, common = grown * longer, common * longer
    return _template_tokens() + known.seeds.mean + common + 2 * (grown - common)


def _template_tokens() -> float:
    message = [{"role": "user", "content": "x"}]
    text = prompts.render(TEMPLATE, shared=message, a=message, b=message)
    return len(text) / CHARACTERS_A_TOKEN + MARKERS + HEADER


def _add_hours_and_cost(known: Known, plan: Plan, engine: EngineConfig, answered: _Answered) -> None:
    config, quantities = known.config, plan.quantities
    if engine.endpoint is not None:
        tokens = [quantities[f"judge.{kind}_tokens"].bounds for kind in ("prompt", "completion")]
        low, expected, high = (
            endpoint_cost(config, "judge", {"prompt": round(prompt), "completion": round(completion)}) or 0.0
            for prompt, completion in zip(*tokens, strict=True)
        )
        quantities["judge.gpu_hours"] = Quantity.exactly(0.0, "GPU hours", "an endpoint")
        quantities["judge.cost"] = Quantity.of(
            (low, expected, high), config.costs.currency, "endpoint prices", _cost_so_far(known, answered)
        )
        return
    rate, basis = _rate(known, answered)
    if rate is None:
        plan.notes.append(
            "hours and cost of the judge unknown: set costs.judge_tokens_per_second_per_engine, or let it "
            f"judge {MIN_ROWS} pairs and plan again"
        )
        return
    seconds = scale(quantities["judge.completion_tokens"].bounds, 1 / rate)
    quantities["judge.wall_hours"] = Quantity.of(
        scale(seconds, 1 / engine.max_engines / 3600),
        "hours",
        f"{engine.max_engines} engine(s) at once; {basis}",
    )
    quantities["judge.gpu_hours"] = Quantity.of(
        scale(seconds, engine.gpus_per_engine / 3600),
        "GPU hours",
        basis if engine.gpus_per_engine else "pairs.judge.engine.gpus_per_engine is 0",
        answered.used["gpu_seconds"] / 3600 or None,
    )
    hour = spent(3600.0 * engine.gpus_per_engine, 3600.0 * engine.cpus_per_engine, {}, config)
    if hour.unpriced:
        plan.notes.append(f"cost of the judge unknown: set {', '.join(hour.unpriced)}")
    elif hour.cost is not None:
        quantities["judge.cost"] = Quantity.of(
            scale(seconds, hour.cost / 3600), config.costs.currency, "costs", _cost_so_far(known, answered)
        )


def _rate(known: Known, answered: _Answered) -> tuple[float | None, str]:
    """Completion tokens a second of one engine, and where that is known from."""
    used = answered.used
    if (rate := known.config.costs.judge_tokens_per_second_per_engine) is not None:
        return rate, "costs.judge_tokens_per_second_per_engine"
    if answered.is_enough and used["engine_seconds"] and used["completion"]:
        rate = used["completion"] / used["engine_seconds"]
        return rate, f"{rate:,.0f} tokens/s an engine so far, start-up included"
    return None, ""


def _cost_so_far(known: Known, answered: _Answered) -> float | None:
    used = answered.used
    if not used:
        return None
    tokens = {kind: used[kind] for kind in TOKEN_KINDS}
    return spent(used["gpu_seconds"], used["cpu_seconds"], {"judge": tokens}, known.config).cost


def _times(one: Bounds, other: Bounds) -> Bounds:
    return one[0] * other[0], one[1] * other[1], one[2] * other[2]
