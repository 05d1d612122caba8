"""Configuration of what a run may cost: prices and rates to plan with, and caps that end it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from music_ray.config.base import FREE, Section
from music_ray.config.engine import EngineConfig


class CostsConfig(Section):
    """Prices and rates to plan with. A price or rate that is empty is not guessed: the plan does without."""

    currency: str = Field(default="USD", min_length=1, json_schema_extra=FREE)
    """What all prices are in."""

    gpu_hour: float | None = Field(default=None, ge=0.0, json_schema_extra=FREE)
    """Price of one GPU for an hour, the machine around it included."""

    cpu_hour: float | None = Field(default=None, ge=0.0, json_schema_extra=FREE)
    """Price of one CPU for an hour, where CPUs are paid for apart from GPUs."""

    tokens_per_second_per_engine: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """Completion tokens a second that one engine writes with this configuration, its prompts included: from
    a benchmark, or from another run's report. When empty it is taken from this run, once it has made
    rollouts."""

    judge_tokens_per_second_per_engine: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """Completion tokens a second that one engine of the judge (pairs.judge.engine) writes, its long prompts
    included. When empty it is taken from this run, once the judge has been asked."""

    train_tokens_per_second_per_worker: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """Tokens a second that one training worker trains on, both sides of a pair counted: from the lines of
    an earlier training. Goes before peak_tflops and mfu."""

    peak_tflops: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """Peak of one training GPU in 10¹² operations a second at train.precision, from its data sheet."""

    gpu: (
        Literal[
            "T4",
            "V100-16",
            "V100-32",
            "L4",
            "A10G",
            "L40S",
            "A100-40",
            "A100-80",
            "H100-80",
            "H200",
            "B200",
        ]
        | None
    ) = Field(default=None, json_schema_extra=FREE)
    """Kind of the training GPUs. With it a training that does not fit their memory is refused before
    anything is paid for; when empty, only once Ray has the nodes and names their GPUs."""

    gpu_memory_gib: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """Memory of one training GPU in GiB, where `gpu` does not know it or it is a part of one (MIG); goes
    before that of `gpu`."""

    mfu: float | None = Field(default=None, gt=0.0, le=1.0, json_schema_extra=FREE)
    """Share of peak_tflops that the training really reaches. Both are needed to plan its hours."""

    reply_fill: float = Field(default=0.6, gt=0.0, le=1.0, json_schema_extra=FREE)
    """Share of its max_tokens that a text is expected to fill, a guess until rollouts are there; the plan's
    lower bound is half of it, its upper bound 1."""

    acceptance: float = Field(default=0.8, gt=0.0, le=1.0, json_schema_extra=FREE)
    """Share of rollouts that is expected to pass the gates, a guess until the pairs stage has run."""

    seed_tokens: int = Field(default=250, ge=1, json_schema_extra=FREE)
    """Mean length of a seed context in tokens, a guess until the seeds stage has run."""


class LimitsConfig(Section):
    """Caps on what rollouts and the judge of the pairs stage may use together, over all starts; the stage
    then ends in order and can go on."""

    max_gpu_hours: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """GPU hours that engines may hold, their start-up included; no cap when empty."""

    max_cost: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """What engines and endpoints may cost at the prices of `costs` and `engine.endpoint`; no cap when
    empty."""

    max_tokens: int | None = Field(default=None, ge=1, json_schema_extra=FREE)
    """Prompt and completion tokens together, cached ones included; no cap when empty."""


def cost_problems(costs: CostsConfig, limits: LimitsConfig, engine: EngineConfig) -> list[str]:
    """Why these prices and caps can't be used together, each with its remedy.

    Args:
        engine: one of those that the caps hold for.
    """
    problems = []
    if limits.max_cost is not None and engine.endpoint is None:
        if engine.gpus_per_engine and costs.gpu_hour is None:
            problems.append(
                f"limits.max_cost ({limits.max_cost:g}) can't be watched without the price of a GPU: set "
                "costs.gpu_hour"
            )
        if not engine.gpus_per_engine and costs.cpu_hour is None:
            problems.append(
                f"limits.max_cost ({limits.max_cost:g}) can't be watched without a price: set costs.cpu_hour"
            )
    return problems
