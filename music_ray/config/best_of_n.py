"""Configuration of best-of-N: which prompts, how many candidates and turns, who scores and who judges."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from music_ray.config.base import FREE, GROWTH, Section, select
from music_ray.config.engine import begin_problems, engine_problems
from music_ray.config.judge import AskedJudge

MOST_CANDIDATES = 64
BUILT_IN_CHECKERS = ("gsm8k",)


class BestOfNConfig(Section):
    """Conversations in which reward models pick the replies, and the judge that compares them (`music-ray
    best-of-n`). In a run's folder all of this may change. In a folder of results, models, roles, `n`,
    `turns`, `selection`, `checker`, `scorer_dtype` and `scorer_max_len` may not: prompts may be added, and
    the other keys changed."""

    prompts: str | None = Field(default=None, min_length=1, json_schema_extra=FREE)
    """A Parquet or JSON-lines file, or a folder of them, with `prompt` (text, or messages that end on the
    user's), and perhaps `id`, `source` and `answer`. A prompt without an id is named by its content."""

    sources: list[str] = Field(default=[], json_schema_extra=FREE)
    """Only prompts whose `source` is one of these; all when empty."""

    num_prompts: int | None = Field(default=None, ge=1, json_schema_extra=GROWTH)
    """How many prompts, the first by a hash of their ids; all when empty."""

    n: list[int] = Field(default=[2, 4, 8], min_length=1)
    """Numbers of candidates that are picked from (2 to 64). Those of a smaller number are among those of
    a larger one."""

    turns: int = Field(default=3, ge=1, le=64)
    """Assistant turns of a conversation; the user simulator writes what stands between them."""

    selection: list[Literal["turn", "whole"]] = Field(default=["turn", "whole"], min_length=1)
    """turn: a model picks each reply, and the user answers what it picked. whole: N conversations are
    written to their end, and it picks one of them."""

    checker: str | None = None
    """Says exactly how good a conversation is: gsm8k (is the last number of the final reply, or one that
    stands alone behind `####`, the prompt's `answer`?), or `module:function` with (messages, answer) → a
    number, larger being better, or None where it can't say. It judges beside the judge, and makes an oracle
    that picks what it likes best."""

    judge: AskedJudge = Field(default=AskedJudge(), json_schema_extra=FREE)
    """Compares what two models picked."""

    second_judge: AskedJudge = Field(default=AskedJudge(), json_schema_extra=FREE)
    """Is asked the same, and its agreement with the first is reported."""

    against_random: bool = Field(default=True, json_schema_extra=FREE)
    """Have each model's picks also judged against random ones. With one model this is the only
    comparison, and happens anyway."""

    repeat: int = Field(default=50, ge=0, json_schema_extra=FREE)
    """So many pairs of picks, the first by a hash, are judged twice, the second time with other seeds: this
    shows how often the judge agrees with itself."""

    scorer_device: Literal["cpu", "gpu"] = Field(default="cpu", json_schema_extra=FREE)
    """Where the reward models compute, inside each engine actor. gpu: beside a vLLM engine on its first
    GPU, which engine.gpu_memory_utilization must leave room on; beside an endpoint, on a GPU of their own.
    A folder of results goes on on the other device with the same number format only."""

    scorer_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the reward models' weights; auto is float32 on the CPU and the model's own on
    GPUs. What it comes to belongs to a folder of results."""

    scorer_max_len: int | None = Field(default=None, ge=64)
    """Longest conversation in tokens that is scored; a longer candidate is not picked. What the model
    reads, up to 4,096, when empty."""

    @property
    def selections(self) -> list[Literal["turn", "whole"]]:
        """The ways to pick; conversations of one turn have but one."""
        return self.selection if self.turns > 1 else self.selection[:1]

    @field_validator("n")
    @classmethod
    def _possible_numbers(cls, numbers: list[int]) -> list[int]:
        for one in numbers:
            if not 2 <= one <= MOST_CANDIDATES:
                raise ValueError(
                    f"{one} is no number of candidates to pick from: name 2 to {MOST_CANDIDATES} (one alone "
                    "is the random pick, which is always there)"
                )
        return sorted(set(numbers))

    @field_validator("selection")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        return sorted(set(names))

    @field_validator("checker")
    @classmethod
    def _names_a_checker(cls, name: str | None) -> str | None:
        if name is None or name in BUILT_IN_CHECKERS:
            return name
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            raise ValueError(
                f"checker {name!r} is neither {' nor '.join(BUILT_IN_CHECKERS)} nor of the form "
                "module:function, e.g. my_checks:is_right"
            )
        return name


def best_of_n_problems(config: BestOfNConfig) -> list[str]:
    """Why judges can't be used with their values together, each with its remedy."""
    problems = []
    for name, judge in (("judge", config.judge), ("second_judge", config.second_judge)):
        if judge.engine is not None:
            problems += engine_problems(judge.engine, f"best_of_n.{name}.engine", judge.sampling.max_tokens)
            problems += begin_problems(judge.engine, f"best_of_n.{name}", judge.sampling)
    if config.judge.engine is None and config.second_judge.engine is not None:
        problems.append("best_of_n.second_judge has an engine and best_of_n.judge has none: name it there")
    elif config.second_judge.engine is not None and _answers(config.judge) == _answers(config.second_judge):
        problems.append(
            f"best_of_n.second_judge is best_of_n.judge once more ({config.second_judge.engine.model}, with "
            "the same sampling), so that they agree on everything: name another model in "
            "best_of_n.second_judge.engine, or leave it out"
        )
    return problems


def _answers(judge: AskedJudge) -> dict[str, Any]:
    """All that decides what a judge says, as its verdicts are kept under it; not where it is served."""
    return select(judge, {"identity"})
