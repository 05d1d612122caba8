"""Extrapolating from rollouts: exact where all are there, intervals that hold as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.planning import measured
from music_ray.planning.measured import extrapolate, read_measured
from tests.planning.conftest import MakeRun, add_rollouts, add_seeds


def seed_ids(run):
    return np.array([row["id"] for row in run.read_rows("seeds", "contexts", columns=["id"])])


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=50), st.integers(0, 1000))
def test_bounds_hold_the_expectation_and_what_is_there(numbers: list[int], rest: int) -> None:
    per_row = np.array(numbers, dtype=float)
    low, expected, high = extrapolate(per_row, len(numbers), len(numbers) + rest)
    assert expected == pytest.approx(per_row.mean() * (len(numbers) + rest))
    assert per_row.sum() <= low * (1 + 1e-9) + 1e-9
    assert low <= expected * (1 + 1e-9) and expected <= high * (1 + 1e-9)
    if rest == 0:
        assert (low, expected, high) == pytest.approx((per_row.sum(),) * 3)


def test_the_interval_holds_the_truth_in_95_of_100_runs() -> None:
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(2000):
        rows = random.gamma(2.0, 300.0, size=1200)
        low, _, high = extrapolate(rows[:200], 200, 1200)
        hits += low <= rows.sum() <= high
    assert 0.935 <= hits / 2000 <= 0.965


def test_rows_of_a_run_are_counted_as_they_are(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    assert read_measured(run, seed_ids(run)) is None
    rows = add_rollouts(run, 60)
    found = read_measured(run, seed_ids(run))
    assert found is not None
    assert (found.num_rows, found.num_sampled, found.ok_share) == (60, 60, 1.0)
    for role in ("assistant", "user", "contrast"):
        of_role = [[call for call in row.calls if call.role == role] for row in rows]
        assert found.calls[role].sum() == sum(map(len, of_role))
        for kind in ("prompt", "cached", "completion"):
            numbers = [getattr(call, f"{kind}_tokens") for calls in of_role for call in calls]
            assert found.tokens[role, kind].sum() == sum(numbers)
    assert found.calls["assistant"].tolist() == [4.0] * 60
    assert set(found.conversation.tolist()) <= {120.0, 140.0}


def test_rows_of_other_seeds_do_not_count(make_run: MakeRun) -> None:
    run = make_run()
    add_seeds(run)
    add_rollouts(run, 60)
    found = read_measured(run, seed_ids(run)[:20])
    assert found is not None
    assert (found.num_rows, found.is_enough) == (20, False)


def test_of_many_rows_some_shards_are_read(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    add_seeds(run)
    add_rollouts(run, 60)
    whole = run.read_bytes("rollouts", "shards", "e0001-a.parquet")
    run.clear("rollouts")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(whole))
    for part in range(6):
        run.write_table(table.slice(10 * part, 10), "rollouts", "shards", f"e0001-{part}.parquet")
    monkeypatch.setattr(measured, "SAMPLED_ROWS", 20)
    found = read_measured(run, seed_ids(run))
    assert found is not None
    assert (found.num_rows, found.num_sampled) == (60, 20)
    assert found.basis == "60 rollouts that are there, 20 of them read"
