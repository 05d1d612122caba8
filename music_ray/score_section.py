"""The section of a model card that says how the model scored: written with the model, filled in later.

It stands between two lines of its own, so that the evaluation replaces it without touching the rest.
The module knows Markdown and the numbers of evals/pairwise.json, not files.
"""

from __future__ import annotations

import re
from typing import Any

from music_ray.markdown import code, table

BEGIN, END = "<!-- music_ray: scores -->", "<!-- music_ray: end of scores -->"
"""Text of others stands in cells and fences inside a line, so no other line can be one of these."""
_SECTION = re.compile(rf"^{re.escape(BEGIN)}$.*?^{re.escape(END)}$", re.DOTALL | re.MULTILINE)
_NAMES = {"preferences": "held-out pairs of D", "music": "held-out MUSIC pairs"}


def score_section(results: dict[str, Any] | None) -> str:
    """The section with its two lines.

    Args:
        results: what the evaluate stage wrote into evals/pairwise.json; None before it has run.
    """
    text = "Not evaluated yet; `music-ray evaluate` fills this in." if results is None else _scores(results)
    return "\n".join([BEGIN, "", "## Scores", "", text, "", END])


def with_scores(card: str, results: dict[str, Any]) -> str:
    """A card with these results in its section; at its end where it has none."""
    section = score_section(results)
    if _SECTION.search(card):
        return _SECTION.sub(lambda _: section, card, count=1)
    return f"{card.rstrip()}\n\n{section}\n"


def _margin(overall: dict[str, Any]) -> str:
    if overall["mean_margin"] is None:
        return "not known"
    low, high = overall["mean_margin_low"], overall["mean_margin_high"]
    return f"{overall['mean_margin']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _scores(results: dict[str, Any]) -> str:
    rows = [
        [
            _NAMES.get(suite, code(suite)),
            model,
            f"{overall['num_pairs']:,}",
            f"{overall['accuracy']:.3f} [{overall['accuracy_low']:.3f}, {overall['accuracy_high']:.3f}]",
            _margin(overall),
        ]
        for suite, found in results["suites"].items()
        for model, numbers in found["models"].items()
        for overall in [numbers["overall"]]
    ]
    return (
        f"{table(['Pairs', 'Model', 'Number', 'Accuracy', 'Mean margin'], rows)}\n\n"
        f"In brackets {results['confidence']:.0%} bootstrap intervals over whole conversations; a tie counts "
        "as wrong. The untrained\nmodel is the base with the first random head. The pairs come from the same "
        "sources as the training's."
    )
