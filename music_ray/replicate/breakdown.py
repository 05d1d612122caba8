"""Accuracy by kind and by turn of the error, as Markdown: what breakdown.md holds beside the table."""

from __future__ import annotations

from typing import Any


def breakdown(result: dict[str, Any]) -> str:
    """A row for each suite and part of it; suites of one kind, or one turn, have none of that table."""
    arms = list(result["tokens_a_pair"])
    lines: list[str] = []
    for title, key in (("kind of the error", "by_mistake"), ("turn of the error", "by_error_turn")):
        lines += [f"| suite | {title} | " + " | ".join(arms) + " |", "|---" * (len(arms) + 2) + "|"]
        for suite, parts in result[key].items():
            if len(parts) < 2:
                continue
            for part, found in parts.items():
                cells = [f"{found[arm]:.3f}" for arm in arms]
                lines.append(f"| {suite} | {part} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)
