"""The table of the claim says what was shown, what was refuted and what the run leaves open."""

from typing import Any

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
