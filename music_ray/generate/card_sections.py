"""Sections that all dataset cards of a run share: the pairs' own and those of exported folders.

They are written from counts and a configuration; where these come from is not known here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

from music_ray.config import RunConfig
from music_ray.generate.licences import UNKNOWN, Licences
from music_ray.markdown import code, fenced, front_matter, table
from music_ray.public import public_configuration
from music_ray.schema import Message

_MESSAGE_SHOWN = 600
_SOURCES_SHOWN = 50
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SOURCES_HEAD = "## Sources and licence"
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def hub_metadata(name: str, licence: dict[str, str], num_rows: int, tags: list[str]) -> dict[str, Any]:
    """The card's front matter: what the hub indexes.

    Args:
        licence: `license`, and `license_name` where that is `other` (Licences.on_the_hub).
    """
    size = next((name for bound, name in _SIZES if num_rows < bound), "n>1M")
    return {
        "pretty_name": name,
        **licence,
        "size_categories": [size],
        "tags": tags,
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
        ],
    }


def counts_table(title: str, counts: Counter[Any], unit: str = "Pairs") -> str:
    """How many there are of each, in the order of the keys."""
    return table([title, unit], [[code(str(key)), str(count)] for key, count in sorted(counts.items())])


def sources_section(sources: Counter[str], licences: Licences, unit: str = "Pairs") -> str:
    """Where the conversations begin, and what is known of the licences."""
    shown = sorted(sources.most_common(_SOURCES_SHOWN))
    rows = [
        [
            code(source),
            str(count),
            ", ".join(code(one) if one != UNKNOWN else one for one in licences.of(source)),
        ]
        for source, count in shown
    ]
    lines = [
        _SOURCES_HEAD,
        "",
        "The conversations begin with messages of these sources:",
        "",
        table(["Source", unit, "Licence"], rows),
        "",
    ]
    if left_out := len(sources) - len(shown):
        lines += [f"{left_out} smaller sources are not listed.", ""]
    if licences.unknown(sources) or not sources:
        lines += [
            "music_ray does not know the licences of all sources, so the licence is marked `unknown`. Find",
            "them out before passing the pairs on, and name them in `data.sources`.",
        ]
    else:
        lines += [
            "The licences are what the rows or the configuration say; nobody has checked them for you.",
        ]
    return "\n".join([*lines, "The models that wrote the rest may have terms of their own."])


def example_section(row: dict[str, Any] | None) -> str:
    """One pair as it is, long messages shortened; nothing when there is none."""
    if row is None:
        return ""
    instructions = "\n".join(f"turn {one['turn']}: {one['instruction']}" for one in row["contrasts"])
    parts = [
        f"## An example\n\n{code(row['id'])}; the sides part at turn {row['branch_turn']}.",
        "Chosen:\n\n" + fenced(transcript(row["chosen"])),
        "Rejected:\n\n" + fenced(transcript(row["rejected"])),
    ]
    if instructions:
        parts.append(
            "What the rejected side answered instead (turns counted after the seed):\n\n"
            + fenced(instructions)
        )
    return "\n\n".join(parts)


def configuration_section(config: RunConfig) -> str:
    """The keys that made the pairs; machines, credentials and budgets are not among them."""
    text = yaml.safe_dump(public_configuration(config), sort_keys=False, allow_unicode=True).strip()
    return "## Configuration\n\n" + fenced(text, "yaml")


def transcript(messages: list[Message]) -> str:
    """A conversation as plain text."""
    return "\n\n".join(f"[{message['role']}]\n{_shorten(message['content'])}" for message in messages)


def find_section(card: str, head: str) -> str:
    """A section of a card from its head to the next one; empty when it has none."""
    # The first such line is ours: texts of others stand in the sections after these.
    _, found, rest = f"\n{card}".partition(f"\n{head}\n")
    return f"{head}\n{rest.partition(chr(10) + '## ')[0]}".rstrip("\n") if found else ""


def with_licences(card: str, sources: Counter[str], licences: Licences, unit: str = "Pairs") -> str:
    """A card with what is known of the licences now: they can be named after the pairs were made."""
    front, old = _FRONT.match(card), find_section(card, _SOURCES_HEAD)
    if front is None or not old:
        return card
    licence = licences.on_the_hub(sources)
    head: dict[str, Any] = {}
    for key, value in yaml.safe_load(front[1]).items():
        if key == "license":
            head |= licence
        elif key != "license_name":
            head[key] = value
    body = card[front.end() :].replace(old, sources_section(sources, licences, unit), 1)
    return f"{front_matter(head)}\n{body}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MESSAGE_SHOWN else text[:_MESSAGE_SHOWN] + " …"
