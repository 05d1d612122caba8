"""The dataset card of D_MUSIC: pairs/README.md, as the Hugging Face hub reads it.

Generated and third-party text stands in fences that it can't close. This module writes Markdown and
decides nothing; it does not know files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from music_ray import __version__
from music_ray.config import RunConfig
from music_ray.generate.card_sections import (
    configuration_section,
    counts_table,
    example_section,
    hub_metadata,
    sources_section,
)
from music_ray.generate.licences import Licences, licences_of
from music_ray.markdown import code, fenced, front_matter, table
from music_ray.public import without_places
from music_ray.schema import SCHEMA_VERSION, Rollout, Writer

__all__ = ["CardFacts", "dataset_card", "fenced"]


@dataclass
class _Spent:
    """What the calls of one role took."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass
class CardFacts:
    """What the card says about the rows, gathered while they pass by."""

    writers: Counter[Writer] = field(default_factory=Counter)
    """Rollouts by who wrote them in which role."""
    models: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Rollouts that don't say who wrote them in which role (version 1), by (engine, model, revision)."""
    spent: dict[str, _Spent] = field(default_factory=dict)
    """What all calls took, refused rollouts and retries included, by role."""
    prompt_hashes: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    licence_records: list[dict[str, Any]] | None = None
    """`licences` of the seeds stage in the manifest; without it the configuration alone is asked."""
    num_turns: Counter[int] = field(default_factory=Counter)
    branch_turns: Counter[int] = field(default_factory=Counter)
    num_pairs: int = 0
    example: dict[str, Any] | None = None

    def count_rollout(self, rollout: Rollout) -> None:
        """Takes note of who wrote a rollout, and of what that took."""
        self.writers.update(rollout.writers)
        if not rollout.writers:
            self.models[rollout.engine, rollout.model, rollout.model_revision] += 1
        self.prompt_hashes.add(rollout.prompt_hash)
        for call in rollout.calls:
            spent = self.spent.setdefault(call.role, _Spent())
            spent.calls += 1
            spent.prompt_tokens += call.prompt_tokens
            spent.cached_tokens += call.cached_tokens
            spent.completion_tokens += call.completion_tokens
            spent.seconds += call.seconds

    def count_pair(self, row: dict[str, Any]) -> None:
        """Takes note of an accepted pair; the first one is the card's example."""
        self.num_pairs += 1
        self.sources[row["source"]] += 1
        self.num_turns[row["num_turns"]] += 1
        self.branch_turns[row["branch_turn"]] += 1
        if self.example is None:
            self.example = row


def dataset_card(config: RunConfig, facts: CardFacts, num_rollouts: int, refused: dict[str, int]) -> str:
    """The card as Markdown with YAML front matter."""
    licences = licences_of(config, facts.licence_records)
    sections = [
        _front_matter(config, facts, licences),
        _what_it_is(config, facts, num_rollouts, refused),
        _how_it_was_made(config, facts),
        _what_it_took(facts),
        sources_section(facts.sources, licences),
        _FIELDS,
        example_section(facts.example),
        _LOADING,
        _USE,
        configuration_section(config),
    ]
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def _front_matter(config: RunConfig, facts: CardFacts, licences: Licences) -> str:
    return front_matter(
        hub_metadata(
            f"MUSIC pairs of the run {config.name}",
            licences.on_the_hub(facts.sources),
            facts.num_pairs,
            ["preference", "reward-model", "multi-turn", "synthetic", "music_ray"],
        )
    )


def _what_it_is(config: RunConfig, facts: CardFacts, num_rollouts: int, refused: dict[str, int]) -> str:
    share = f" That is {facts.num_pairs / num_rollouts:.1%}." if num_rollouts else ""
    lines = [
        f"# MUSIC pairs of the run `{config.name}`",
        "",
        f"{facts.num_pairs} preference pairs of whole conversations, synthesised without human labels by",
        "Multi-Step Instruction Contrast (MUSIC, arXiv 2512.24693) with music_ray "
        f"{__version__}, schema version {SCHEMA_VERSION}. Of {num_rollouts} rollouts {facts.num_pairs} "
        f"passed the quality gates.{share}",
        "",
        counts_table("User turns", facts.num_turns),
        "",
        counts_table("First turn in which the sides differ", facts.branch_turns),
    ]
    if refused:
        lines += ["", counts_table("Reason for refusal", Counter(refused), "Rollouts")]
    return "\n".join(lines)


def _how_it_was_made(config: RunConfig, facts: CardFacts) -> str:
    contrast = config.contrast
    models = [
        f"- {code(without_places(model))}"
        + (f", revision {code(revision)}" if revision else "")
        + f" on the engine {code(engine)}"
        f": {count} rollouts"
        for (engine, model, revision), count in sorted(facts.models.items())
    ]
    return "\n".join(
        [
            "## How it was made",
            "",
            f"A seed conversation is continued for {config.generate.turns} assistant turns by a user "
            f"simulator (mode `{config.user.mode}`) and an assistant.",
            "In the rejected side the assistant answers a related but different instruction at some turns "
            f"(contrast mode `{contrast.mode}`,",
            f"schedule `{contrast.schedule}`); the history shows the user's real message only. Run seed "
            f"{config.seed}; prompts {', '.join(code(one) for one in sorted(facts.prompt_hashes))}.",
            "",
            "Models:",
            "",
            *([_writers(facts)] if facts.writers else []),
            *(["", *models] if facts.writers and models else models),
        ]
    )


def _writers(facts: CardFacts) -> str:
    rows = [
        [
            writer.role,
            code(without_places(writer.model)),
            code(writer.model_revision),
            code(writer.engine),
            code(writer.sampling),
            str(count),
        ]
        for writer, count in sorted(facts.writers.items(), key=lambda item: _writer_order(item[0]))
    ]
    return table(["Role", "Model", "Revision", "Engine", "Sampling", "Rollouts"], rows)


def _writer_order(writer: Writer) -> tuple[str, ...]:
    return writer.role, writer.model, writer.model_revision, writer.engine, writer.sampling


def _what_it_took(facts: CardFacts) -> str:
    if not facts.spent:
        return ""
    rows = [
        [
            role,
            str(spent.calls),
            str(spent.prompt_tokens),
            str(spent.cached_tokens),
            str(spent.completion_tokens),
            f"{spent.seconds:.0f}" if spent.seconds else "–",
        ]
        for role, spent in sorted(facts.spent.items())
    ]
    head = ["Role", "Calls", "Prompt tokens", "of them cached", "Completion tokens", "Seconds"]
    return "\n".join(
        [
            "## What it took",
            "",
            "All engine calls, those of refused rollouts and of retries included:",
            "",
            table(head, rows),
            "",
            "Seconds count from asking to answer, and many calls are under way at once: their sum is more",
            "than the time that the run took.",
        ]
    )


_FIELDS = """
## Fields

| Field | What |
|---|---|
| `id` | `music-` and the id of the seed |
| `source` | the source of the seed conversation |
| `origin` | `D_MUSIC` |
| `conversation` | hash of the first user message: split by it, not by row |
| `num_turns` | user messages in the chosen side |
| `branch_turn` | first turn, from 1, in which the sides differ |
| `chosen`, `rejected` | lists of `{role, content}` messages, whole conversations |
| `seed_id` | id of the seed context |
| `contrasts` | the spoiled turns (from 1, after the seed): what was asked, and what was answered instead |
"""
_LOADING = """
## How to load it

    datasets.load_dataset("parquet", data_dir="THIS FOLDER")

TRL's `RewardTrainer` takes `chosen` and `rejected` as they are. They are not meant for `DPOTrainer`: the
sides differ over several turns, and their user messages with them. `music-ray export RUN --format dpo` gives
prompts that both sides answer, `--format sft` the chosen conversations.
"""
_USE = """
## Intended use

Training and testing reward models that judge whole conversations, beside ordinary preference pairs. Chosen
is better than rejected by construction, not by a human's judgement.

## Limits

- A chosen reply can be wrong, unsafe or dull: it only answers what the user asked, and the rejected one
  something else. Not meant as demonstrations for a chat model.
- The user is simulated: what real people would have asked next can be something else.
- A contrast can fail: a rejected reply may still serve the user. Labels are not checked one by one unless a
  judge was configured.
- Traces of how the sides were made (length, style, complaining users) can tell them apart without reading.
- The seeds' own faults are inherited: their languages, opinions, errors and personal data.
"""
