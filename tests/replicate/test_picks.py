"""H5 from the results of best-of-N."""

from typing import Any

import pytest

from music_ray.errors import StageError
from music_ray.replicate.picks import picks_finding


def results(
    rates: dict[int, tuple[float, float]], slope_low: float, second: str = "second"
) -> dict[str, Any]:
    who = {"first": "first", "second": second, "selection": "whole", "judged_by": "checker"}
    other = who | {"selection": "turn", "win_rate": 0.1, "win_rate_low": 0.0, "win_rate_high": 0.2, "n": 2}
    return {
        "comparisons": [
            other,
            *(
                who | {"n": n, "win_rate": rate, "win_rate_low": low, "win_rate_high": rate + 0.1}
                for n, (rate, low) in rates.items()
            ),
        ],
        "trends": [who | {"slope": slope_low + 0.01, "slope_low": slope_low, "slope_high": slope_low + 0.02}],
    }


def test_it_holds_where_every_n_wins_and_more_with_larger_n() -> None:
    found = picks_finding(results({2: (0.6, 0.55), 4: (0.65, 0.6), 8: (0.7, 0.65)}, 0.005))
    assert found.holds
    assert list(found.estimates) == ["N = 2", "N = 4", "N = 8", "slope a doubling"]
    assert found.estimates["N = 8"].value == 0.7


@pytest.mark.parametrize(
    ("rates", "slope_low"),
    [
        ({2: (0.6, 0.49), 4: (0.65, 0.6), 8: (0.7, 0.65)}, 0.005),
        ({2: (0.6, 0.55), 4: (0.65, 0.6), 8: (0.7, 0.65)}, -0.001),
    ],
)
def test_it_does_not_hold(rates: dict[int, tuple[float, float]], slope_low: float) -> None:
    assert not picks_finding(results(rates, slope_low)).holds


def test_no_comparison_of_the_models() -> None:
    with pytest.raises(StageError, match="no comparisons of A1 and A0 by whole conversation"):
        picks_finding(results({2: (0.6, 0.5)}, 0.1, second="random"))
