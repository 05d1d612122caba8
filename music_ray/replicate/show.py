"""The table of the claim, as Markdown."""

from __future__ import annotations

from typing import Any

from music_ray.replicate.claim import as_json, over_seeds


def table(result: dict[str, Any]) -> str:
    """Accuracies by suite and arm with 95% intervals, then each hypothesis with what was found."""
    arms = list(result["tokens_a_pair"])
    lines = ["| suite | pairs | " + " | ".join(arms) + " |", "|---" * (len(arms) + 2) + "|"]
    for suite, found in result["accuracy"].items():
        cells = [_interval(found[arm]) for arm in arms]
        lines.append(f"| {suite} | {result['num_pairs'][suite]} | " + " | ".join(cells) + " |")
    for what, found in (("of its own", result["tokens_a_pair"]), ("of all", result["tokens_of_all"])):
        lines.append(
            f"| *tokens a pair {what}* | | " + " | ".join(f"{found[arm]:.1f}" for arm in arms) + " |"
        )
    lines.append("")
    lines += ["| | hypothesis | found | |", "|---|---|---|---|"]
    for one in result["findings"]:
        found = ", ".join(f"{name}: {_interval(value)}" for name, value in one["estimates"].items())
        verdict = "holds" if one["holds"] else "REFUTED" if one["refuted"] else "NOT SHOWN"
        lines.append(f"| {one['name']} | {one['statement']} | {found} | {verdict} |")
    lines += ["", *_differences(result["differences"])]
    if result["training_seeds"] == 1:
        lines += ["", "One training seed: how much a model changes from seed to seed is in no interval."]
    else:
        lines += ["", *_by_seed(result["findings"], result["differences_by_seed"])]
    if any(one["name"] == "ready" and not one["holds"] for one in result["findings"]):
        lines += ["", "**Not ready: nothing is concluded from the other lines.**"]
    if any(one["name"] == "checks" and not one["holds"] for one in result["findings"]):
        lines += [
            "",
            "A0 misses too many of the language model's own errors where it looks: the aim is out of reach, "
            "and what S2 can show is bounded by what A0 finds there.",
        ]
    baseline = result["tokens_of_all"]["A0"]
    off = [arm for arm, value in result["tokens_of_all"].items() if abs(value / baseline - 1) > 0.02]
    if off:
        lines += ["", f"Not within 2% of the tokens a pair that A0 is trained on: {', '.join(off)}."]
    if result["new_first_messages"]:
        lines += ["", _new_first_messages(result["new_first_messages"])]
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


def _differences(by_suite: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """How much more often one arm is right than another, on the same pairs."""
    compared = list(next(iter(by_suite.values())))
    lines = ["| difference on | " + " | ".join(compared) + " |", "|---" * (len(compared) + 1) + "|"]
    for suite, found in by_suite.items():
        lines.append(f"| {suite} | " + " | ".join(_interval(found[one]) for one in compared) + " |")
    return lines


def _by_seed(findings: list[dict[str, Any]], differences: dict[str, dict[str, list[float]]]) -> list[str]:
    """Each training seed by itself, and Student's interval over them: it knows how few they are.

    Of the findings, and of what else is compared on the suites that the page speaks of.
    """
    rows = {f"{one['name']}: {name}": values for one in findings for name, values in one["by_seed"].items()}
    told = {name for one in findings for name in one["by_seed"]}
    for suite in ("S2", "S3", "S4", "S4_control"):
        for name, values in differences.get(suite, {}).items():
            if suite != "S2" or name not in told:
                rows[f"{suite}: {name}"] = values
    lines = ["| | seed by seed | Student's interval over seeds |", "|---|---|---|"]
    for name, values in rows.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {name} | {each} | {_interval(as_json(over_seeds(values)))} |")
    return lines


def _new_first_messages(found: dict[str, Any]) -> str:
    compared = ", ".join(f"{name}: {_interval(one)}" for name, one in found["differences"].items())
    return (
        f"On the {found['num_pairs']} pairs of S2 whose first message scale short does not have: {compared}."
    )


def _rates(by_turn: dict[str, dict[str, int]]) -> str:
    shares = (
        f"turn {turn} {100 * row['wrong'] / max(1, sum(row.values())):.1f}%" for turn, row in by_turn.items()
    )
    return ", ".join(shares) or "not looked at"


def _interval(one: dict[str, float]) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
