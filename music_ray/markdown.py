"""Markdown in which text of others can't break out of its fence, its line or its cell.

Nor can it steer the terminal in which the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from music_ray.visible import visible, visible_values


def fenced(text: str, language: str = "text") -> str:
    """Text in a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def code(text: str) -> str:
    """Text as inline code on one line, in which neither Markdown nor a table can break out."""
    plain = visible(" ".join(text.replace("`", "'").split())).replace("|", "\\|")
    return f"`{plain}`" if plain else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def front_matter(values: dict[str, Any]) -> str:
    """The YAML head of a card, as the hub reads it; every text in it is on one line."""
    return "---\n" + yaml.safe_dump(visible_values(values), sort_keys=False, allow_unicode=True) + "---"
