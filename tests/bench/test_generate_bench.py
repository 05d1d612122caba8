"""The pure parts of bench-generate: what is requested, by whom in which order, and how speeds compare."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.bench import generate as bench
from music_ray.bench.replay import (
    Measured,
    Request,
    half_turns,
    planned_tokens,
    questions,
    speed_ratio,
)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The second round was slow for both: that must not count.
    ratio = speed_ratio([10.0, 40.0, 10.0], [13.0, 40.0, 20.0])
    assert (ratio.median, ratio.low, ratio.high) == (1.3, 1.0, 2.0)
    assert str(ratio) == "1.30 [1.00, 2.00]"
    with pytest.raises(ValueError):
        speed_ratio([1.0], [1.0, 2.0])


@given(st.integers(0, 2**31 - 1), st.integers(1, 512))
def test_planned_lengths_are_within_bounds_and_a_function_of_the_seed(seed: int, longest: int) -> None:
    tokens = planned_tokens(seed, longest)
    assert 1 <= tokens <= longest and tokens == planned_tokens(seed, longest)


def test_planned_lengths_are_unequal_like_replies_that_end_by_themselves() -> None:
    lengths = [planned_tokens(seed, 48) for seed in range(4000)]
    assert 11.5 < statistics.mean(lengths) < 12.5
    assert statistics.median(lengths) < 10  # most are short …
    assert 0.01 < sum(length == 48 for length in lengths) / 4000 < 0.03  # … and a few reach the limit


def request(step: int, seed: int) -> Request:
    return Request([1, 2, 3], 4, seed, 0.5, step)


def test_barriers_come_in_order_and_lose_no_request() -> None:
    mixed = [request(3, 1), request(1, 2), request(2, 3), request(1, 4), request(3, 5)]
    batches = half_turns(mixed)
    assert [[one.step for one in batch] for batch in batches] == [[1, 1], [2], [3, 3]]
    assert sorted(one.seed for batch in batches for one in batch) == [1, 2, 3, 4, 5]


def test_questions_of_all_rounds_differ() -> None:
    first, second = questions(150), questions(150, 150)
    assert len({*first, *second}) == 300
    assert questions(3, 150) == second[:3]


def test_the_table_compares_only_rounds_that_both_ran() -> None:
    def took(seconds: float) -> Measured:
        return Measured(seconds, prompt_tokens=100, cached_tokens=75, completion_tokens=50)

    measured = {
        "found": {
            bench.OURS: [took(10.0), took(20.0), took(10.0)],
            bench.CACHED: [took(9.0), took(18.0), took(8.0)],
            bench.RAY: [took(15.0)],
        },
        "starts": {bench.OURS: 40.0, bench.RAY: 70.0},
    }
    rows = bench.table(measured)
    assert rows[bench.CACHED]["ours_over_it"] == {"median": 0.9, "low": 0.8, "high": 0.9}
    assert rows[bench.CACHED]["met"] is True and rows[bench.CACHED]["cache_hit_rate"] == 0.75
    assert rows[bench.RAY]["ours_over_it"]["median"] == 1.5 and rows[bench.RAY]["cache_hit_rate"] is None
    assert rows[bench.OURS]["tokens_per_second"] == 5.0 and "ours_over_it" not in rows[bench.OURS]
    assert rows[bench.OURS]["start_seconds"] == 40.0


def test_the_run_that_is_measured_is_a_valid_one() -> None:
    options = bench.parse_options(["--seeds", "8", "--max-num-seqs", "2"])
    config = bench.run_config(options)
    assert config.engine.max_num_seqs == 2 and config.generate.turns == 5
    assert config.assistant.sampling.max_tokens == 48 and config.user.max_attempts == 1


def test_too_few_seeds_to_keep_the_engine_full_are_refused() -> None:
    with pytest.raises(SystemExit):
        bench.parse_options(["--seeds", "63", "--max-num-seqs", "16"])
