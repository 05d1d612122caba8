"""The dataset card of an exported folder: README.md, as the Hugging Face hub reads it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from music_ray import __version__
from music_ray.config import RunConfig
from music_ray.generate.card_sections import (
    configuration_section,
    find_section,
    hub_metadata,
    sources_section,
    transcript,
)
from music_ray.generate.export.formats import FIELDS, Format, Side, schema_of
from music_ray.generate.licences import Licences, licences_of
from music_ray.markdown import code, fenced, front_matter, table
from music_ray.rundir import RunDir
from music_ray.schema import SCHEMA_VERSION

UNIT = "Rows"
_TITLES: dict[Format, str] = {"sft": "MUSIC conversations", "dpo": "MUSIC preferences for DPO"}
_TAGS: dict[Format, list[str]] = {"sft": ["sft"], "dpo": ["preference", "dpo"]}


def export_card(
    run: RunDir,
    format: Format,
    side: Side,
    num_rows: int,
    sources: Counter[str],
    example: dict[str, Any] | None,
) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        example: the row that is shown; none when there are no rows.
    """
    licences = run_licences(run)
    fields = [
        [f"`{name}`", FIELDS[name].format(side=side) if name == "messages" else FIELDS[name]]
        for name in schema_of(format, "").names
    ]
    sections = [
        _head(run.config, format, num_rows, licences, sources),
        _what_it_is(run.config, format, side, num_rows),
        _how_the_pairs_were_made(run),
        sources_section(sources, licences, UNIT),
        "## Fields\n\n" + table(["Field", "What"], fields),
        _example(format, example),
        _SFT_USE if format == "sft" else _DPO_USE,
        _LIMITS,
        configuration_section(run.config),
    ]
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def run_licences(run: RunDir) -> Licences:
    """What is known of the licences of a run's sources."""
    return licences_of(run.config, run.manifest()["stages"].get("seeds", {}).get("licences"))


def _head(config: RunConfig, format: Format, num_rows: int, licences: Licences, sources: Counter[str]) -> str:
    tags = [*_TAGS[format], "multi-turn", "synthetic", "music_ray"]
    name = f"{_TITLES[format]} of the run {config.name}"
    return front_matter(hub_metadata(name, licences.on_the_hub(sources), num_rows, tags))


def _what_it_is(config: RunConfig, format: Format, side: Side, num_rows: int) -> str:
    what = {
        "sft": f"{num_rows} whole conversations: the {side} sides of preference pairs. They",
        "dpo": f"{num_rows} prompts with a chosen and a rejected reply, from the turns where the sides of\n"
        "preference pairs part. The pairs",
    }[format]
    return (
        f"# {_TITLES[format]} of the run `{config.name}`\n\n{what} were synthesised without human labels\n"
        "by Multi-Step Instruction Contrast (MUSIC, arXiv 2512.24693) with music_ray "
        f"{__version__}, schema version {SCHEMA_VERSION}."
    )


def _how_the_pairs_were_made(run: RunDir) -> str:
    """Who wrote the pairs and what that took, as the pairs' own card says it: pairs/ does not hold it."""
    if not run.exists("pairs", "README.md"):
        return ""
    card = run.read_text("pairs", "README.md")
    return "\n\n".join(find_section(card, head) for head in ("## How it was made", "## What it took"))


def _example(format: Format, row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    columns = ["messages"] if format == "sft" else ["prompt", "chosen", "rejected"]
    shown = [f"`{name}`:\n\n{fenced(transcript(row[name]))}" for name in columns]
    return "\n\n".join([f"## An example\n\n{code(row['id'])}", *shown])


_SFT_USE = """
## How to use it

    rows = datasets.load_dataset("parquet", data_dir="THIS FOLDER", split="train")
    SFTTrainer(model, train_dataset=rows, args=SFTConfig(assistant_only_loss=True))

The first `num_context_messages` messages come from the source, not from the models of this run. To train on
what was generated alone, give the trainer a prompt and a completion:

    rows = rows.map(
        lambda row: {"prompt": row["messages"][: row["num_context_messages"]],
                     "completion": row["messages"][row["num_context_messages"] :]},
        remove_columns=["messages"],
    )
"""
_DPO_USE = """
## How to use it

    rows = datasets.load_dataset("parquet", data_dir="THIS FOLDER", split="train")
    DPOTrainer(model, train_dataset=rows, processing_class=tokenizer, args=DPOConfig())

It is TRL's conversational preference format with an explicit prompt. The later turns of the pairs are not in
it: from there on each side has user messages of its own.
"""
_LIMITS = """
## Limits

- A chosen reply answers what the user asked; that can be wrong, unsafe or dull all the same.
- A rejected reply answers something else, in good style: preferences of other kinds are not taught by it.
- The user is simulated, and the sources' own faults are inherited: languages, opinions, errors and personal
  data.
"""
