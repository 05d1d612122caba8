"""The configuration of a run: one YAML file, one section a stage. Importing it loads nothing heavy.

    config = load_config("configs/demo.yaml", ["generate.turns=3"])

This package knows which values make sense alone and together; it does not look at files, models or
machines (music_ray.preflight does).
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from music_ray.config.base import FREE, Section
from music_ray.config.best_of_n import BestOfNConfig, best_of_n_problems
from music_ray.config.costs import CostsConfig, LimitsConfig, cost_problems
from music_ray.config.data import DataConfig, RayConfig, SeedsConfig, SourceConfig
from music_ray.config.endpoint import EndpointConfig
from music_ray.config.engine import EngineConfig, SamplingConfig, begin_problems, engine_problems
from music_ray.config.generation import GenerateConfig
from music_ray.config.judge import AskedJudge, JudgeConfig
from music_ray.config.quality import AuditConfig, EvalSetConfig, GatesConfig, PairsConfig
from music_ray.config.roles import AssistantConfig, ContrastConfig, UserConfig, parse_schedule
from music_ray.config.score import ScoreConfig
from music_ray.config.training import (
    EvaluateConfig,
    LoraConfig,
    LossConfig,
    MixConfig,
    PlanConfig,
    ReportConfig,
    TrainConfig,
    ZeroConfig,
    train_problems,
    weight_problems,
)

__all__ = [
    "AskedJudge",
    "AssistantConfig",
    "AuditConfig",
    "BestOfNConfig",
    "ContrastConfig",
    "CostsConfig",
    "DataConfig",
    "EndpointConfig",
    "EngineConfig",
    "EvalSetConfig",
    "EvaluateConfig",
    "GatesConfig",
    "GenerateConfig",
    "JudgeConfig",
    "LimitsConfig",
    "LoraConfig",
    "LossConfig",
    "MixConfig",
    "PairsConfig",
    "PlanConfig",
    "RayConfig",
    "ReportConfig",
    "RunConfig",
    "SamplingConfig",
    "ScoreConfig",
    "SeedsConfig",
    "SourceConfig",
    "TrainConfig",
    "UserConfig",
    "ZeroConfig",
    "parse_schedule",
]


class RunConfig(Section):
    """Everything that one run does, from the preference set to the report."""

    name: str = Field(json_schema_extra=FREE)
    """Name of the run; its folder is runs_dir/name."""

    runs_dir: str = Field(default="runs", min_length=1, json_schema_extra=FREE)
    """Folder of all runs: a local path or a pyarrow filesystem URI (s3://…, gs://…)."""

    seed: int = Field(default=0, ge=0)
    """The run seed: ids, splits, schedules, prompts and every request's own seed derive from it."""

    data: DataConfig = DataConfig()
    """The preference set D."""

    seeds: SeedsConfig = SeedsConfig()
    """How seeds are cut from D."""

    engine: EngineConfig = EngineConfig()
    """The model that writes the rollouts."""

    user: UserConfig = UserConfig()
    """The user simulator."""

    assistant: AssistantConfig = AssistantConfig()
    """The assistant."""

    contrast: ContrastConfig = ContrastConfig()
    """How the rejected branch is spoiled."""

    generate: GenerateConfig = GenerateConfig()
    """The rollouts."""

    pairs: PairsConfig = PairsConfig()
    """The quality gates."""

    mix: MixConfig = MixConfig()
    """D ∪ D_MUSIC."""

    train: TrainConfig = TrainConfig()
    """The reward training."""

    evaluate: EvaluateConfig = EvaluateConfig()
    """The evaluation."""

    report: ReportConfig = ReportConfig()
    """The report."""

    score: ScoreConfig = Field(default=ScoreConfig(), json_schema_extra=FREE)
    """What computes the scores of `music-ray score`."""

    best_of_n: BestOfNConfig = Field(default=BestOfNConfig(), json_schema_extra=FREE)
    """What `music-ray best-of-n` does."""

    audit: AuditConfig = Field(default=AuditConfig(), json_schema_extra=FREE)
    """The shortcut audit of the pairs."""

    ray: RayConfig = Field(default=RayConfig(), json_schema_extra=FREE)
    """How Ray is reached."""

    plan: PlanConfig = Field(default=PlanConfig(), json_schema_extra=FREE)
    """What each stage may take."""

    costs: CostsConfig = Field(default=CostsConfig(), json_schema_extra=FREE)
    """Prices and rates to plan with."""

    limits: LimitsConfig = Field(default=LimitsConfig(), json_schema_extra=FREE)
    """What rollouts and judge may cost."""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                f"name {name!r} must be 1 to 100 letters, digits, '.', '_' or '-': it names a folder"
            )
        return name

    @model_validator(mode="after")
    def _possible_together(self) -> RunConfig:
        for problem in _impossible(self):
            raise ValueError(problem)
        return self


def _impossible(config: RunConfig) -> list[str]:
    """Combinations that could only fail later, each with its remedy."""
    problems = []
    _, argument = parse_schedule(config.contrast.schedule)
    turns = config.generate.turns
    if isinstance(argument, list):
        bad = [turn for turn in argument if not 1 <= turn <= turns]
        if bad:
            problems.append(
                f"contrast.schedule ({config.contrast.schedule}) names turn {bad[0]}, but generate.turns is "
                f"{turns}: name turns from 1 to {turns}, or raise generate.turns"
            )
    engine = config.engine
    problems += _impossible_role_engines(config)
    longest = max(role.sampling.max_tokens for role in _roles_of_main_engine(config))
    problems += engine_problems(engine, "engine", longest)
    for name, role in (("assistant", config.assistant), ("user", config.user), ("contrast", config.contrast)):
        problems += begin_problems(getattr(role, "engine", None) or engine, name, role.sampling)
    if (judge := config.pairs.judge).engine is not None:
        problems += engine_problems(judge.engine, "pairs.judge.engine", judge.sampling.max_tokens)
        problems += begin_problems(judge.engine, "pairs.judge", judge.sampling)
        if config.pairs.gates.judge_disagrees:
            problems += cost_problems(config.costs, config.limits, judge.engine)
    problems += best_of_n_problems(config.best_of_n)
    problems += cost_problems(config.costs, config.limits, engine)
    problems += train_problems(config.train)
    if not (config.mix.include_preferences or config.mix.include_music):
        problems.append("mix.include_preferences and mix.include_music are both false: nothing to train on")
    problems += weight_problems(config.mix, config.train)
    return problems


def _roles_of_main_engine(config: RunConfig) -> list[AssistantConfig | UserConfig | ContrastConfig]:
    own = [role for role in (config.user, config.contrast) if role.engine is None]
    return [config.assistant, *own]


def _impossible_role_engines(config: RunConfig) -> list[str]:
    return [
        f"{name}.engine.kind=vllm would load a second model into every engine's process: start that model "
        f"with `vllm serve`, and set {name}.engine.kind=endpoint and {name}.engine.endpoint.base_url"
        for name, role in (("user", config.user), ("contrast", config.contrast))
        if role.engine is not None and role.engine.kind == "vllm"
    ]
