"""What was used turned into money, and whether it is more than the configured caps allow.

Pure functions of amounts and configuration: rollouts and the judge's job ask them while they work, the plan
before, the report after. They do not measure anything themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from music_ray.config import EngineConfig, LimitsConfig, RunConfig
from music_ray.engines.base import Completion
from music_ray.engines.prices import cost as completion_cost

TOKEN_KINDS = ("prompt", "cached", "completion")
"""Kinds of tokens in every account; cached ones are among the prompt's."""

Tokens = Mapping[str, int]
"""Number of tokens by kind."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Amounts, and what they cost."""

    gpu_hours: float
    cpu_hours: float
    tokens: int
    """Prompt and completion tokens, cached ones included."""
    cost: float | None
    """In `currency`, of all that has a price; None where nothing has."""
    currency: str
    unpriced: tuple[str, ...] = ()
    """Keys of the prices that are missing for something that was used: `cost` is then too low."""


def spent(
    gpu_seconds: float,
    cpu_seconds: float,
    tokens: Tokens | Mapping[str, Tokens],
    config: RunConfig,
) -> Spent:
    """What engines and endpoints have used so far.

    Args:
        gpu_seconds: GPUs that engine actors held, times seconds.
        cpu_seconds: the same of CPUs; they cost something where costs.cpu_hour is set.
        tokens: by kind (prompt, cached, completion), or by role and then by kind where roles have engines
            of their own.
    """
    by_role = _by_role(tokens)
    gpu_hours, cpu_hours = gpu_seconds / 3600, cpu_seconds / 3600
    costs = config.costs
    parts: list[float] = []
    unpriced: list[str] = []
    if gpu_hours and costs.gpu_hour is None:
        unpriced.append("costs.gpu_hour")
    if costs.gpu_hour is not None:
        parts.append(gpu_hours * costs.gpu_hour)
    if costs.cpu_hour is not None:
        parts.append(cpu_hours * costs.cpu_hour)
    parts += [
        price for role, kinds in by_role.items() if (price := endpoint_cost(config, role, kinds)) is not None
    ]
    return Spent(
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        tokens=sum(kinds.get("prompt", 0) + kinds.get("completion", 0) for kinds in by_role.values()),
        cost=sum(parts) if parts else None,
        currency=costs.currency,
        unpriced=tuple(unpriced),
    )


def exceeded(spent: Spent, limits: LimitsConfig) -> str:
    """Which cap is passed, with its remedy; empty while there is none."""
    remedy = "raise it, and the same command goes on; nothing that is finished is lost"
    if limits.max_cost is not None and spent.cost is not None and spent.cost > limits.max_cost:
        return (
            f"{spent.cost:,.2f} {spent.currency} are spent, limits.max_cost is "
            f"{limits.max_cost:,.2f}: {remedy}"
        )
    if limits.max_gpu_hours is not None and spent.gpu_hours > limits.max_gpu_hours:
        return (
            f"{spent.gpu_hours:,.2f} GPU hours are used, limits.max_gpu_hours is "
            f"{limits.max_gpu_hours:,.2f}: {remedy}"
        )
    if limits.max_tokens is not None and spent.tokens > limits.max_tokens:
        return f"{spent.tokens:,} tokens are used, limits.max_tokens is {limits.max_tokens:,}: {remedy}"
    return ""


def engine_of_role(config: RunConfig, role: str) -> EngineConfig:
    """The engine that answers a role's calls: its own, else the run's.

    Args:
        role: assistant, user, contrast or judge, as calls are recorded; resample's contrast calls are the
            user simulator's, and the judge is that of the pairs stage.
    """
    if role == "contrast" and config.contrast.mode == "resample" and not config.contrast.plugin:
        role = "user"
    own = {
        "user": config.user.engine,
        "contrast": config.contrast.engine,
        "judge": config.pairs.judge.engine,
    }
    return own.get(role) or config.engine


def endpoint_cost(config: RunConfig, role: str, tokens: Tokens) -> float | None:
    """What tokens cost that a role used at its endpoint; None where it has a local engine."""
    endpoint = engine_of_role(config, role).endpoint
    if endpoint is None:
        return None
    numbers = (tokens.get(kind, 0) for kind in TOKEN_KINDS)
    return completion_cost(Completion("", "stop", *numbers), endpoint)


def _by_role(tokens: Mapping[str, Any]) -> Mapping[str, Tokens]:
    return tokens if all(isinstance(one, Mapping) for one in tokens.values()) else {"assistant": tokens}
