"""A run's plan from beginning to end: made, compared with the caps, and kept in the run folder.

plan.json holds two plans: the first, made before the rollouts that it speaks of, and the latest. The
report compares the first with the truth; a plan that is extrapolated from rollouts would flatter itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from music_ray.config import LimitsConfig
from music_ray.identity import identity_of
from music_ray.planning.known import Known, read_known
from music_ray.planning.plan import PLAN_VERSION, Plan, Quantity, add
from music_ray.planning.rollouts import plan_rollouts
from music_ray.planning.training import plan_training
from music_ray.rundir import RunDir, digest

PLAN_FILE = "plan.json"
COSTLY = ("generate", "judge", "train", "evaluate")
"""Stages that hold engines or GPUs; the judge works for the pairs stage."""
CAPPED = ("generate", "judge")
"""Those of them that the caps of `limits` hold for, together."""


def make_plan(run: RunDir) -> tuple[Plan, bool]:
    """The plan of a run, from its configuration and whatever its folder holds.

    Returns:
        (the plan, whether it may be written into the run folder).

    Raises:
        RunFolderError: the folder's manifest is damaged or of a newer music_ray.
    """
    known = read_known(run)
    config = run.config
    plan = Plan(
        name=config.name,
        num_seeds=known.num_seeds,
        seeds_are_known=known.seeds_are_known,
        rows_there=known.rows_there,
        currency=config.costs.currency,
        notes=list(known.notes),
    )
    plan_rollouts(known, plan)
    plan_training(known, plan)
    _add_totals(plan)
    _compare_with_limits(known, plan)
    return plan, known.fits


def write_plan(run: RunDir) -> Plan:
    """Makes the plan and writes it into the run folder, if that was made with the same settings.

    Raises:
        RunFolderError: the folder's manifest is damaged or of a newer music_ray.
    """
    plan, fits = make_plan(run)
    if fits:
        keep_plan(run, plan)
    return plan


def keep_plan(run: RunDir, plan: Plan) -> None:
    """Writes plan.json; the first plan stays as long as it is of the same rollouts."""
    about = digest([identity_of(run.config), plan.num_seeds])
    before = _read(run)
    document: dict[str, Any] = {"plan_version": PLAN_VERSION, "about": about, "latest": plan.to_json()}
    has_first = before.get("about") == about and "first" in before
    if plan.rows_there == 0 or not has_first:
        document["first"] = document["latest"]
    else:
        document["first"] = before["first"]
    run.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", PLAN_FILE)


def _read(run: RunDir) -> dict[str, Any]:
    if not run.exists(PLAN_FILE):
        return {}
    try:
        document = json.loads(run.read_text(PLAN_FILE))
    except ValueError:
        return {}  # a plan is quickly made again
    return document if isinstance(document, dict) else {}


def _add_totals(plan: Plan) -> None:
    """GPU hours and cost of the whole run, where every costly stage that has some is known."""
    stages = _planned(plan, COSTLY)
    for what, unit in (("gpu_hours", "GPU hours"), ("cost", plan.currency)):
        parts = {stage: plan.quantities.get(f"{stage}.{what}") for stage in stages}
        found = {stage: one for stage, one in parts.items() if one is not None}
        if found:
            without = [stage for stage in stages if stage not in found]
            basis = " + ".join(found) + (f"; {', '.join(without)} not known" if without else "")
            total = add(*(one.bounds for one in found.values()))
            plan.quantities[f"total.{what}"] = Quantity.of(total, unit, basis)


def _planned(plan: Plan, stages: Sequence[str]) -> list[str]:
    """The stages without the judge, where the run has none."""
    return [stage for stage in stages if stage != "judge" or "judge.calls" in plan.quantities]


def _compare_with_limits(known: Known, plan: Plan) -> None:
    """Says which caps rollouts and judge are expected to reach together, or may reach."""
    limits: LimitsConfig = known.config.limits
    who = {"generate": "the rollouts", "judge": "the judge"}
    stages = _planned(plan, CAPPED)
    planned: list[tuple[str, float | None, tuple[str, ...], str]] = [
        ("max_gpu_hours", limits.max_gpu_hours, ("gpu_hours",), " GPU hours"),
        ("max_cost", limits.max_cost, ("cost",), f" {plan.currency}"),
        ("max_tokens", limits.max_tokens, ("prompt_tokens", "completion_tokens"), " tokens"),
    ]
    for name, limit, parts, unit in planned:
        if limit is None:
            continue
        counted = [stage for stage in stages if f"{stage}.{parts[0]}" in plan.quantities]
        if "generate" not in counted:
            plan.notes.append(f"limits.{name} ({limit:,g}) can't be compared with the plan: see above")
            continue
        if counted != stages:
            plan.notes.append(f"limits.{name} ({limit:,g}) is compared with the rollouts alone: see above")
        bounds = add(*(plan.quantities[f"{stage}.{part}"].bounds for stage in counted for part in parts))
        named = " and ".join(who[stage] for stage in counted)
        if bounds[1] > limit:
            plan.warnings.append(
                f"{named} are expected to take {bounds[1]:,.6g}{unit}, limits.{name} is {limit:,.6g}: "
                "they will be stopped before the end; raise it, or lower seeds.num_seeds"
            )
        elif bounds[2] > limit:
            plan.warnings.append(
                f"{named} may take up to {bounds[2]:,.6g}{unit}, limits.{name} is {limit:,.6g}: "
                "they might be stopped before the end"
            )
    _compare_the_whole_run(plan, limits.max_cost, stages)


def _compare_the_whole_run(plan: Plan, max_cost: float | None, capped: Sequence[str]) -> None:
    whole = plan.quantities.get("total.cost")
    if max_cost is None or whole is None or whole.expected <= max_cost:
        return
    parts = [plan.quantities.get(f"{stage}.cost") for stage in capped]
    if all(parts) and sum(part.expected for part in parts if part is not None) <= max_cost:
        who = "rollouts and judge" if "judge" in capped else "rollouts"
        plan.warnings.append(
            f"the whole run is expected to cost {whole.expected:,.2f} {plan.currency}, limits.max_cost "
            f"is {max_cost:,.2f}, which stops {who} alone"
        )
