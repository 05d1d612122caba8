"""The table of the claim says what was shown, what was refuted and what the run leaves open."""

from typing import Any

from music_ray.replicate.breakdown import breakdown
from music_ray.replicate.show import table

INTERVAL = {"value": 0.1, "low": 0.05, "high": 0.15}


def result(**changed: Any) -> dict[str, Any]:
    def finding(name: str, holds: bool, refuted: bool) -> dict[str, Any]:
        by_seed = {"A1 − A0": [0.08, 0.12]}
        return {
            "name": name, "statement": f"{name} is so", "estimates": {"A1 − A0": INTERVAL}, "holds": holds,
            "refuted": refuted, "by_seed": by_seed,
        }  # fmt: skip

    return {
        "accuracy": {"S2": {"A0": INTERVAL, "A6": INTERVAL}},
        "num_pairs": {"S2": 40},
        "tokens_a_pair": {"A0": 150.0, "A6": 158.0},
        "tokens_of_all": {"A0": 150.0, "A6": 152.9},
        "findings": [finding("H1", True, False), finding("H2", False, False), finding("H4", False, True)],
        "training_seeds": 2,
        "best_of_n": {},
        "shortcuts": {},
        "natural_errors": {},
        "rollout_errors": {},
        "new_first_messages": None,
        "differences": {
            "S2": {"A1 − A0": INTERVAL, "A1 − A5": INTERVAL},
            "S9": {"A1 − A0": INTERVAL, "A1 − A5": INTERVAL},
        },
        "differences_by_seed": {
            "S2": {"A1 − A0": [0.08, 0.12], "A1 − A5": [0.0, 0.02]},
            "S9": {"A1 − A0": [0.5, 0.5]},
        },
    } | changed


def test_three_words_for_a_hypothesis() -> None:
    lines = table(result()).splitlines()
    assert "| H1 | H1 is so | A1 − A0: 0.100 [0.050, 0.150] | holds |" in lines
    assert "| H2 | H2 is so | A1 − A0: 0.100 [0.050, 0.150] | NOT SHOWN |" in lines
    assert "| H4 | H4 is so | A1 − A0: 0.100 [0.050, 0.150] | REFUTED |" in lines


def test_each_training_seed_stands_beside_student_s_interval() -> None:
    assert "| H1: A1 − A0 | 0.080, 0.120 | 0.100 [-0.154, 0.354] |" in table(result()).splitlines()
    alone = table(result(training_seeds=1))
    assert "Student" not in alone
    assert "One training seed: how much a model changes from seed to seed is in no interval." in alone


def test_tokens_are_compared_over_all_that_an_arm_is_trained_on() -> None:
    said = "Not within 2% of the tokens a pair that A0 is trained on"
    assert said not in table(result())
    assert f"{said}: A6." in table(result(tokens_of_all={"A0": 150.0, "A6": 153.1}))
    assert "| *tokens a pair of all* | | 150.0 | 152.9 |" in table(result())


def test_new_first_messages_are_told_apart() -> None:
    found = {"num_pairs": 30, "differences": {"A1 − A0": INTERVAL}}
    assert (
        "On the 30 pairs of S2 whose first message scale short does not have: A1 − A0: 0.100 [0.050, 0.150]."
    ) in table(result(new_first_messages=found))


def test_what_is_reported_whatever_it_says_stands_there() -> None:
    lines = table(result()).splitlines()
    at = lines.index("| difference on | A1 − A0 | A1 − A5 |")
    assert lines[at + 2 : at + 4] == [
        "| S2 | 0.100 [0.050, 0.150] | 0.100 [0.050, 0.150] |",
        "| S9 | 0.100 [0.050, 0.150] | 0.100 [0.050, 0.150] |",
    ]
    # Of S2 what no hypothesis names, seed by seed; A1 − A0 stands there with its hypothesis.
    assert "| S2: A1 − A5 | 0.000, 0.020 | 0.010 [-0.117, 0.137] |" in lines
    assert not [line for line in lines if line.startswith(("| S2: A1 − A0", "| S9:"))]


def test_warnings_stand_below_the_hypotheses() -> None:
    def finding(name: str, holds: bool) -> dict[str, Any]:
        facts = {"statement": "so", "estimates": {"A0": INTERVAL}, "by_seed": {"A0": [0.1, 0.1]}}
        return {"name": name, "holds": holds, "refuted": not holds, **facts}

    said = {
        "ready": "**Not ready: nothing is concluded from the other lines.**",
        "checks": "A0 misses too many of the language model's own errors where it looks: the aim is out of ",
    }
    for name, line in said.items():
        assert line in table(result(findings=[finding(name, False)]))
        assert line not in table(result(findings=[finding(name, True)]))


def test_win_rates_of_both_selections_are_told() -> None:
    found = {"turn": {"N = 2": INTERVAL}, "whole": {"N = 2": INTERVAL, "N = 4": INTERVAL}}
    assert (
        "Win rate of A1's picks over A0's, picked by turn: N = 2: 0.100 [0.050, 0.150].\n\n"
        "Win rate of A1's picks over A0's, picked by whole: N = 2: 0.100 [0.050, 0.150], "
        "N = 4: 0.100 [0.050, 0.150].\n"
    ) in table(result(best_of_n=found))


def test_parts_of_a_suite_by_arm() -> None:
    by = {"S3": {"off_by_one": {"A0": 0.5, "A6": 0.75}, "stale_reference": {"A0": 0.25, "A6": 1.0}}}
    alone = {"S1": {"contrast": {"A0": 0.5, "A6": 0.5}}}
    assert breakdown(result(by_mistake=alone | by, by_error_turn={})).splitlines() == [
        "| suite | kind of the error | A0 | A6 |",
        "|---|---|---|---|",
        "| S3 | off_by_one | 0.500 | 0.750 |",
        "| S3 | stale_reference | 0.250 | 1.000 |",
        "",
        "| suite | turn of the error | A0 | A6 |",
        "|---|---|---|---|",
    ]
