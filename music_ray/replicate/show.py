"""The table of the claim, as Markdown."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> str:
    """Accuracies by suite and arm with 95% intervals, then each hypothesis with what was found."""
    arms = list(result["tokens_a_pair"])
    lines = ["| suite | pairs | " + " | ".join(arms) + " |", "|---" * (len(arms) + 2) + "|"]
    for suite, found in result["accuracy"].items():
        cells = [_interval(found[arm]) for arm in arms]
        lines.append(f"| {suite} | {result['num_pairs'][suite]} | " + " | ".join(cells) + " |")
    tokens = [f"{result['tokens_a_pair'][arm]:.1f}" for arm in arms]
    lines += ["| *tokens a pair of its own* | | " + " | ".join(tokens) + " |", ""]
    lines += ["| | hypothesis | found | |", "|---|---|---|---|"]
    for one in result["findings"]:
        found = ", ".join(f"{name}: {_interval(value)}" for name, value in one["estimates"].items())
        verdict = "holds" if one["holds"] else "DOES NOT HOLD"
        lines.append(f"| {one['name']} | {one['statement']} | {found} | {verdict} |")
    if result["training_seeds"] == 1:
        lines += ["", "One training seed: how much a model changes from seed to seed is in no interval."]
    if any(one["name"] == "ready" and not one["holds"] for one in result["findings"]):
        lines += ["", "**Not ready: nothing is concluded from the other lines.**"]
    if any(one["name"] == "checks" and not one["holds"] for one in result["findings"]):
        lines += [
            "",
            "A0 misses too many of the language model's own errors where it looks: the aim is out of reach, "
            "and what S2 can show is bounded by what A0 finds there.",
        ]
    baseline = result["tokens_a_pair"]["A0"]
    off = [arm for arm, value in result["tokens_a_pair"].items() if abs(value / baseline - 1) > 0.02]
    if off:
        lines += ["", f"Not within 2% of A0's tokens a pair of its own: {', '.join(off)}."]
    for selection, by_n in result["best_of_n"].items():
        found = ", ".join(f"{name}: {_interval(one)}" for name, one in by_n.items())
        lines += ["", f"Win rate of A1's picks over A0's, picked by {selection}: {found}."]
    lines += [
        "",
        "| AUC of what can be counted | lengths | each reply | likeness | users |",
        "|---|---|---|---|---|",
    ]
    for suite, found in result["shortcuts"].items():
        cells = [f"{found[name]:.2f}" for name in ("lengths", "replies", "likeness", "users")]
        lines.append(f"| {suite} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Wrong replies of the language model by itself: {_rates(result['natural_errors'])} in the "
        f"samples of S2; {_rates(result['rollout_errors'])} in the rollouts of A1.",
    ]
    return "\n".join(lines) + "\n"


def _rates(by_turn: dict[str, dict[str, int]]) -> str:
    shares = (
        f"turn {turn} {100 * row['wrong'] / max(1, sum(row.values())):.1f}%" for turn, row in by_turn.items()
    )
    return ", ".join(shares) or "not looked at"


def _interval(one: dict[str, float]) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
