"""H5 from what became of each prompt in best-of-N."""

import pyarrow as pa
import pytest

from music_ray.errors import InputError, StageError
from music_ray.replicate.picks import SLOPE, intervals, picks_finding, values_of, win_rates


def table(*, wins: dict[int, int], prompts: int = 100, selection: str = "whole", start: int = 0) -> pa.Table:
    """The first model wins on so many prompts for each N; the others are ties."""
    rows = [
        {"id": start + prompt, "selection": selection, "n": n, "value": 1.0 if prompt < number else 0.5}
        for n, number in wins.items()
        for prompt in range(prompts)
    ]
    return pa.Table.from_pylist(rows)


def test_it_holds_where_every_n_wins_and_more_with_larger_n() -> None:
    found = picks_finding(win_rates([table(wins={2: 40, 4: 60, 8: 80})] * 2))
    assert found.holds
    assert list(found.estimates) == ["N = 2", "N = 4", "N = 8", SLOPE]
    assert found.estimates["N = 8"].value == pytest.approx(0.9)
    assert found.estimates[SLOPE].value == pytest.approx(0.1)
    assert found.by_seed["N = 4"] == pytest.approx([0.8, 0.8])
    assert found.by_seed[SLOPE] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("wins", [{2: 0, 4: 60, 8: 80}, {2: 60, 4: 60, 8: 60}, {2: 80, 4: 60, 8: 40}])
def test_it_does_not_hold(wins: dict[int, int]) -> None:
    assert not picks_finding(win_rates([table(wins=wins)])).holds


def test_training_seeds_that_disagree_widen_the_interval() -> None:
    one, other = table(wins={2: 90, 4: 90}), table(wins={2: 0, 4: 0})
    found = intervals(win_rates([one, other]))["whole"]["N = 2"]
    assert (found.value, found.low) == (pytest.approx(0.725), 0.5)
    assert found.high > 0.94


def test_prompts_that_a_seed_lacks_are_left_out() -> None:
    found = win_rates([table(wins={2: 60}, prompts=100), table(wins={2: 40}, prompts=100, start=40)])
    # Prompts 40 to 99 are in both: 20 wins of 60 in the first, 40 of 60 in the second.
    assert intervals(found)["whole"]["N = 2"].value == pytest.approx(0.5 + 0.5 * 60 / 120)
    assert found["whole"]["N = 2"].mean(axis=1) == pytest.approx([0.5 + 0.5 * 20 / 60, 0.5 + 0.5 * 40 / 60])


def test_values_are_the_checker_s_of_the_two_models() -> None:
    row = {"id": 7, "first": "a", "second": "b", "selection": "turn", "n": 2, "judged_by": "checker"}
    outcomes = [
        row | {"outcome": "first"}, row | {"outcome": "unanswered", "n": 4},
        row | {"outcome": "same", "n": 8}, row | {"outcome": "second", "second": "random"},
        row | {"outcome": "second", "judged_by": "judge"},
    ]  # fmt: skip
    found = values_of(pa.Table.from_pylist(outcomes), "a", "b").to_pylist()
    assert found == [
        {"id": 7, "selection": "turn", "n": 2, "value": 1.0},
        {"id": 7, "selection": "turn", "n": 4, "value": None},
        {"id": 7, "selection": "turn", "n": 8, "value": 0.5},
    ]


def test_picks_of_other_n_are_refused() -> None:
    with pytest.raises(InputError) as raised:
        win_rates([table(wins={2: 60, 4: 60}), table(wins={2: 60})])
    assert str(raised.value) == (
        "the picks of the training seeds are not all of the same selections and N "
        "(whole N = 2, whole N = 4): remove outcomes/picks-*.parquet, and they are compared again"
    )


def test_no_comparison_of_the_models() -> None:
    with pytest.raises(
        StageError, match="no prompt that every training seed, N and selection could be judged"
    ):
        win_rates([table(wins={2: 1}, prompts=4), table(wins={2: 1}, prompts=4, start=4)])
    with pytest.raises(StageError, match="compared A1 and A0 on no prompt"):
        win_rates([table(wins={2: 1}).slice(0, 0)])
