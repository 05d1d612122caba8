"""Configuration of what becomes of rollouts: the quality gates of the pairs stage, and the shortcut audit."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

from pydantic import Field, field_validator, model_validator

from music_ray.config.base import Section
from music_ray.config.judge import JudgeConfig


class EvalSetConfig(Section):
    """An evaluation set that no pair may overlap with (the gate eval_overlap)."""

    path: str | None = None
    """A Parquet file, a JSON-lines file (.jsonl, .json, plain or .gz), or a folder of them."""

    hub: str | None = None
    """A Hugging Face dataset id, e.g. allenai/reward-bench-2."""

    revision: str | None = None
    """Commit, tag or branch of the hub dataset; the hub's default branch when empty."""

    split: str = "test"
    """Which split of the hub dataset is read."""

    name: str | None = Field(default=None, min_length=1)
    """What counts and refusals call the set; the file's or dataset's name when empty."""

    columns: list[str] = Field(min_length=1)
    """The columns whose text is compared, e.g. [prompt, chosen]: strings, or lists of strings or of
    {role, content} messages."""

    @model_validator(mode="after")
    def _one_place(self) -> EvalSetConfig:
        if (self.path is None) == (self.hub is None):
            raise ValueError("an evaluation set needs exactly one of `path` (files) and `hub` (a dataset id)")
        return self

    @property
    def title(self) -> str:
        """The set's name, or what it is called without one."""
        return self.name or self.hub or PurePosixPath(str(self.path)).name.partition(".")[0]


class GatesConfig(Section):
    """Quality gates of the pairs stage. A rollout that fails one is counted under the gate's name."""

    empty: bool = True
    """Refuse a rollout in which any generated message is empty."""

    cut_off: bool = True
    """Refuse a rollout in which a reply or user message ended at its token limit."""

    branches_equal: bool = True
    """Refuse a rollout in which a contrasted reply equals the chosen reply of the same turn."""

    template_leak: bool = True
    """Refuse a rollout in which chat-template or role markers leaked into the text."""

    looping: bool = True
    """Refuse a rollout in which a message repeats itself (a word n-gram or line, see loop_ngram)."""

    loop_ngram: int = Field(default=8, ge=2)
    """looping: length in words of the n-gram that must not recur too often."""

    loop_count: int = Field(default=3, ge=2)
    """looping: how often the same n-gram (or the same line) makes a message a loop."""

    branches_alike: bool = True
    """Refuse a rollout whose sides say nearly the same from where they part, or in which a contrasted
    reply says nearly the same as the chosen reply of its turn (branches_alike_similarity)."""

    branches_alike_similarity: float = Field(default=0.9, gt=0.0, le=1.0)
    """branches_alike: Jaccard similarity of the texts' runs of three words that is too much."""

    refusal_in_chosen: bool = True
    """Refuse a rollout in which a chosen reply begins by declining what was asked (English markers)."""

    length_ratio: bool = True
    """Refuse a rollout in which one side's generated text is far longer than the other's
    (max_length_ratio), so that length does not give the label away."""

    max_length_ratio: float = Field(default=3.0, gt=1.0)
    """length_ratio: how many times as many characters one side may have as the other."""

    eval_overlap: bool = True
    """Refuse a rollout that shares a run of words (eval_ngram) with an evaluation set of eval_sets, the
    seed's messages included. Off by itself while eval_sets is empty."""

    eval_sets: list[EvalSetConfig] = Field(default=[])
    """eval_overlap: the evaluation sets."""

    eval_ngram: int = Field(default=13, ge=6)
    """eval_overlap: length in words of the run that must not be shared. Shorter texts of an evaluation
    set, of 6 words at least, are compared as a whole."""

    judge_disagrees: bool = True
    """Refuse a rollout whose chosen side a judge does not find better, asked in both orders
    (pairs.judge). Off by itself while pairs.judge.engine is empty."""

    plugins: list[str] = Field(default=[])
    """Gates of your own, each `module:function`: a function that takes a rollout and returns what is
    wrong with it, empty when it passes. Counted under the function's name."""

    near_duplicate: bool = True
    """Refuse a rollout whose chosen side says nearly the same as that of an accepted one with a smaller
    id (near_duplicate_similarity). Asked last, of what passes all other gates."""

    near_duplicate_similarity: float = Field(default=0.8, ge=0.3, le=1.0)
    """near_duplicate: Jaccard similarity of the generated texts' runs of three words that is too much,
    as MinHash estimates it."""

    minhash_permutations: int = Field(default=128, ge=16, le=1024)
    """near_duplicate: length of the MinHash signatures. With n of them the estimate of a similarity s
    errs by sqrt(s (1 - s) / n), and a rollout takes 4 n bytes of memory."""

    @field_validator("plugins")
    @classmethod
    def _names_functions(cls, plugins: list[str]) -> list[str]:
        for plugin in plugins:
            if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", plugin):
                raise ValueError(
                    f"plugin {plugin!r} is not of the form module:function, e.g. my_gates:polite"
                )
        names = Counter(plugin.partition(":")[2] for plugin in plugins)
        for name, times in names.items():
            if times > 1 or name in cls.model_fields or name == "excluded":
                other = f"{times} plugins have" if times > 1 else "a reason of music_ray has"
                raise ValueError(f"{other} the name {name!r}, under which refusals are counted: rename one")
        return plugins

    @field_validator("eval_sets")
    @classmethod
    def _different_names(cls, sets: list[EvalSetConfig]) -> list[EvalSetConfig]:
        for title, times in Counter(one.title for one in sets).items():
            if times > 1:
                raise ValueError(
                    f"{times} evaluation sets are called {title!r}: give each a `name` of its own"
                )
        return sets


class PairsConfig(Section):
    """From rollouts to pairs."""

    gates: GatesConfig = GatesConfig()
    """Which gates a rollout must pass, and their bounds."""

    judge: JudgeConfig = JudgeConfig()
    """The judge of the gate judge_disagrees."""


class AuditConfig(Section):
    """The shortcut audit: can a linear model on surface features alone tell chosen from rejected?"""

    max_pairs: int = Field(default=20_000, ge=1)
    """At most this many pairs are looked at (the first by a hash of their id and the run seed)."""

    min_pairs: int = Field(default=40, ge=10)
    """Fewer pairs give no AUC: its interval would say nothing."""

    max_auc: float = Field(default=0.70, ge=0.5, le=1.0)
    """A view whose AUC lies above this, with its whole interval, is warned of."""

    folds: int = Field(default=5, ge=2, le=20)
    """Folds of the cross-validation; all pairs of a conversation are in one fold."""

    bootstrap_samples: int = Field(default=500, ge=100)
    """Resamples of whole conversations behind each interval."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Coverage of the intervals."""
