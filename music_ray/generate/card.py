"""The dataset card of D_MUSIC: pairs/README.md, as the Hugging Face Hub reads it.

Generated and third-party text stands in fences that it can't close. This module writes Markdown and
decides nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import yaml

from music_ray import __version__
from music_ray.config import RunConfig
from music_ray.schema import Message, Rollout

_MESSAGE_SHOWN = 600
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass
class CardFacts:
    """What the card says about the rows, gathered while they pass by."""

    models: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Rollouts by (engine, model, revision)."""
    prompt_hashes: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    num_turns: Counter[int] = field(default_factory=Counter)
    branch_turns: Counter[int] = field(default_factory=Counter)
    num_pairs: int = 0
    example: dict[str, Any] | None = None

    def count_rollout(self, rollout: Rollout) -> None:
        """Takes note of who wrote a rollout."""
        self.models[rollout.engine, rollout.model, rollout.model_revision] += 1
        self.prompt_hashes.add(rollout.prompt_hash)

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
    sections = [
        _front_matter(config, facts),
        _what_it_is(config, facts, num_rollouts, refused),
        _how_it_was_made(config, facts),
        _sources(facts),
        _FIELDS,
        _example(facts),
        _USE,
    ]
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def fenced(text: str) -> str:
    """Text in a Markdown fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _front_matter(config: RunConfig, facts: CardFacts) -> str:
    size = next((name for bound, name in _SIZES if facts.num_pairs < bound), "n>1M")
    values = {
        "pretty_name": f"MUSIC pairs of the run {config.name}",
        "license": "unknown",
        "size_categories": [size],
        "tags": ["preference", "reward-model", "multi-turn", "synthetic", "music_ray"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
        ],
    }
    return "---\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True) + "---"


def _what_it_is(config: RunConfig, facts: CardFacts, num_rollouts: int, refused: dict[str, int]) -> str:
    lines = [
        f"# MUSIC pairs of the run `{config.name}`",
        "",
        f"{facts.num_pairs} preference pairs of whole conversations, synthesised without human labels by",
        "Multi-Step Instruction Contrast (MUSIC, arXiv 2512.24693) with music_ray "
        f"{__version__}. Of {num_rollouts} rollouts {facts.num_pairs} passed the quality gates.",
        "",
        _table("User turns", facts.num_turns),
        "",
        _table("First turn in which the sides differ", facts.branch_turns),
    ]
    if refused:
        lines += ["", _table("Reason for refusal", Counter(refused), "Rollouts")]
    return "\n".join(lines)


def _how_it_was_made(config: RunConfig, facts: CardFacts) -> str:
    contrast = config.contrast
    models = [
        f"- {_code(model)}"
        + (f", revision {_code(revision)}" if revision else "")
        + f" on the engine {_code(engine)}"
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
            f"{config.seed}; prompts {', '.join(_code(one) for one in sorted(facts.prompt_hashes))}.",
            "",
            "Models:",
            "",
            *models,
        ]
    )


def _sources(facts: CardFacts) -> str:
    return "\n".join(
        [
            "## Sources and licence",
            "",
            "The conversations begin with messages of these sources:",
            "",
            _table("Source", facts.sources),
            "",
            "music_ray does not know the licences of the sources, and the models that wrote the rest may",
            "have terms of their own: the licence is marked `unknown`. Find out before passing the pairs on.",
        ]
    )


def _example(facts: CardFacts) -> str:
    if facts.example is None:
        return ""
    row = facts.example
    instructions = "\n".join(f"turn {one['turn']}: {one['instruction']}" for one in row["contrasts"])
    parts = [
        f"## An example\n\n{_code(row['id'])}; the sides part at turn {row['branch_turn']}.",
        "Chosen:\n\n" + fenced(_transcript(row["chosen"])),
        "Rejected:\n\n" + fenced(_transcript(row["rejected"])),
    ]
    if instructions:
        parts.append(
            "What the rejected side answered instead (turns counted after the seed):\n\n"
            + fenced(instructions)
        )
    return "\n\n".join(parts)


def _transcript(messages: list[Message]) -> str:
    shown = [f"[{message['role']}]\n{_shorten(message['content'])}" for message in messages]
    return "\n\n".join(shown)


def _shorten(text: str) -> str:
    return text if len(text) <= _MESSAGE_SHOWN else text[:_MESSAGE_SHOWN] + " …"


def _table(title: str, counts: Counter[Any], unit: str = "Pairs") -> str:
    rows = [f"| {_code(str(key))} | {count} |" for key, count in sorted(counts.items())]
    return "\n".join([f"| {title} | {unit} |", "|---|---|", *rows])


def _code(text: str) -> str:
    """Text of others as inline code on one line, in which neither Markdown nor a table can break out."""
    plain = " ".join(text.replace("`", "'").split()).replace("|", "\\|")
    return f"`{plain}`"


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
_USE = """
## Intended use

Training and testing reward models that judge whole conversations, beside ordinary preference pairs. Chosen
is better than rejected by construction, not by a human's judgement; a chosen reply can still be wrong, unsafe
or dull. Not meant as demonstrations for a chat model.

    datasets.load_dataset("parquet", data_dir="THIS FOLDER")
"""
