"""Intervals over training seeds and clusters, and what they say of the hypotheses."""

import numpy as np
import pytest

from music_ray.replicate.claim import (
    accuracies,
    by_part,
    differences,
    differences_by_seed,
    findings,
    over_seeds,
    two_way_bootstrap,
)


def test_one_seed_and_pairs_of_their_own_are_the_plain_bootstrap() -> None:
    values = np.zeros((1, 400))
    values[0, :100] = 1.0
    found = two_way_bootstrap(values, np.arange(400))
    error = np.sqrt(0.25 * 0.75 / 400)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - 1.96 * error, abs=0.006)
    assert found.high == pytest.approx(0.25 + 1.96 * error, abs=0.006)


def test_pairs_of_one_cluster_count_as_one() -> None:
    values = np.zeros((1, 400))
    values[0, :100] = 1.0
    apart = two_way_bootstrap(values, np.arange(400))
    together = two_way_bootstrap(values, np.arange(400) // 4)
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(2.0, abs=0.2)


def test_clusters_of_many_sizes_are_drawn_whole() -> None:
    """Against the bootstrap written out: a draw's mean is over the pairs that it has, not over all pairs."""
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(30), generator.integers(1, 12, size=30))
    values = (generator.random((3, len(clusters))) < 0.2 + 0.02 * clusters).astype(float)
    means = []
    for _ in range(4000):
        drawn = np.concatenate(
            [np.flatnonzero(clusters == one) for one in generator.integers(0, 30, size=30)]
        )
        means.append(values[generator.integers(0, 3, size=3)][:, drawn].mean())
    found = two_way_bootstrap(values, clusters, samples=4000)
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.008), pytest.approx(high, abs=0.008))
    assert high - low > 0.1


def test_over_five_training_seeds_the_bootstrap_is_narrower_than_it_says() -> None:
    """Where models differ by their seed alone; docs/explanation/miniature.md has these shares."""
    generator = np.random.default_rng(0)
    shares = {}
    for seeds in (2, 3, 5):
        holds = {"bootstrap": 0, "Student": 0}
        for _ in range(400):
            of_seeds = generator.normal(size=seeds)
            one = two_way_bootstrap(np.repeat(of_seeds[:, None], 2, axis=1), np.arange(2))
            holds["bootstrap"] += one.low <= 0 <= one.high
            other = over_seeds(of_seeds.tolist())
            holds["Student"] += other.low <= 0 <= other.high
        shares[seeds] = {name: number / 400 for name, number in holds.items()}
    assert [shares[seeds]["bootstrap"] for seeds in (2, 3, 5)] == pytest.approx([0.5, 0.75, 0.86], abs=0.05)
    assert all(0.92 < one["Student"] < 0.98 for one in shares.values())


def test_training_seeds_widen_the_interval() -> None:
    values = np.repeat([[1.0], [0.0], [1.0], [0.0]], 1000, axis=1)  # [s, n]: seeds disagree wholly
    found = two_way_bootstrap(values, np.arange(1000))
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_no_values() -> None:
    with pytest.raises(ValueError, match="no values to average"):
        two_way_bootstrap(np.zeros((0, 3)), np.arange(3))


def right_of(*shares: float, n: int = 4000) -> dict[str, np.ndarray]:
    """S2, S7 and dev_S7 with these shares of right pairs, the same pairs first."""
    row = np.arange(n) / n
    return {
        suite: (row < share)[None, :] for suite, share in zip(("S2", "S7", "dev_S7"), shares, strict=True)
    }


CLUSTERS = dict.fromkeys(("S2", "S7", "dev_S7"), np.arange(4000))


def test_the_paper_s_effect() -> None:
    right = {
        "A0": right_of(0.50, 0.93, 0.93), "A1": right_of(0.82, 0.93, 0.93), "A2": right_of(0.51, 0.93, 0.93),
        "A3": right_of(0.50, 0.93, 0.93), "A4": right_of(0.505, 0.93, 0.93),
    }  # fmt: skip
    found = {one.name: one for one in findings(right, CLUSTERS)}
    assert {name: one.holds for name, one in found.items()} == dict.fromkeys(
        ("ready", "H1", "H2", "aim", "H3", "H4"), True
    )
    assert found["H1"].estimates["A1 − A0"].value == pytest.approx(0.32)
    assert found["H2"].estimates["A1 − A2"].value == pytest.approx(0.31)


def test_no_effect_is_said() -> None:
    right = {"A0": right_of(0.60, 0.85, 0.85), "A1": right_of(0.60, 0.80, 0.80)}
    right |= {"A3": right_of(0.57, 0.85, 0.85), "A4": right_of(0.60, 0.85, 0.85)}
    found = {one.name: one.holds for one in findings(right, CLUSTERS)}
    assert found == {"ready": False, "H1": False, "aim": False, "H3": False, "H4": False}
    refuted = {one.name for one in findings(right, CLUSTERS) if one.refuted}
    # A1 − A0 on S2 is 0 with an interval of [0, 0]: neither shown nor refuted. A3 is 3 points below A0.
    assert refuted == {"ready", "aim", "H3", "H4"}


def test_what_an_interval_holds_on_both_sides_is_undecided() -> None:
    generator = np.random.default_rng(0)
    right = {arm: {suite: generator.random((2, 400)) < 0.5 for suite in ("S2", "S7")} for arm in ("A0", "A1")}
    found = {one.name: one for one in findings(right, dict.fromkeys(("S2", "S7"), np.arange(400)))}
    for name in ("H1", "H4"):
        assert (found[name].holds, found[name].refuted) == (False, False)
    assert found["aim"].refuted
    each = right["A1"]["S2"].mean(axis=1) - right["A0"]["S2"].mean(axis=1)
    assert found["H1"].by_seed["A1 − A0"] == pytest.approx(each.tolist())


def test_the_interval_over_seeds_is_student_s() -> None:
    found = over_seeds([0.08, 0.10, 0.12, 0.09, 0.11])
    # Mean 0.1, standard deviation 0.015811, 2.776 for four degrees of freedom.
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(2.776445 * 0.01581139 / np.sqrt(5), rel=1e-5)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    with pytest.raises(ValueError, match="an interval over training seeds needs two of them, not 1"):
        over_seeds([0.1])


def test_hypotheses_that_nothing_can_be_said_of_are_left_out() -> None:
    right = {"A0": right_of(0.5, 0.9, 0.9), "A1": right_of(0.9, 0.9, 0.9)}
    for found in right.values():
        del found["S2"]
    assert [one.name for one in findings(right, CLUSTERS)] == ["ready", "H4"]


@pytest.mark.parametrize(("share", "holds"), [(0.79, False), (0.80, True)])
def test_natural_errors_in_final_turns_are_to_be_found(share: float, holds: bool) -> None:
    right = {"A0": {"dev_natural": np.arange(100)[None, :] < 100 * share}}
    (found,) = findings(right, {"dev_natural": np.arange(100)})
    assert (found.name, found.holds) == ("checks", holds)
    assert found.estimates["A0"].value == pytest.approx(share)


def test_accuracy_by_suite_and_part() -> None:
    right = {"A0": right_of(0.25, 0.5, 0.75)}
    found = accuracies(right, CLUSTERS)
    assert {suite: one["A0"].value for suite, one in found.items()} == {
        "S2": 0.25, "S7": 0.5, "dev_S7": 0.75
    }  # fmt: skip
    parts = np.array(["early"] * 2000 + ["late"] * 2000)
    assert by_part(right, "S7", parts) == {"early": {"A0": 1.0}, "late": {"A0": 0.0}}


def test_differences_of_all_seeds_and_of_each() -> None:
    generator = np.random.default_rng(1)
    right = {
        arm: {"S2": generator.random((2, 400)) < share}
        for arm, share in (("A0", 0.5), ("A1", 0.8), ("share-half", 0.7))
    }
    found = differences(right, {"S2": np.arange(400)})["S2"]
    each = differences_by_seed(right)["S2"]
    assert list(found) == list(each) == [("A1", "A0"), ("share-half", "A0"), ("share-half", "A1")]
    for arms, values in each.items():
        one, other = (right[arm]["S2"].mean(axis=1) for arm in arms)
        assert values == pytest.approx((one - other).tolist())
        assert found[arms].value == pytest.approx(np.mean(values))
