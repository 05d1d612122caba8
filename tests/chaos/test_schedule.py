"""The schedule of faults: reproducible, within its bounds, and fair to all kinds."""

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import make_schedule

KINDS = {"driver": 1, "node": 2, "worker": 3}


@given(seed=st.integers(0, 10_000), seconds=st.floats(0, 2000), gap=st.floats(1, 100))
def test_gaps_are_near_their_mean_and_nothing_happens_after_the_end(seed, seconds, gap) -> None:
    faults = make_schedule(seed, KINDS, seconds, gap)
    times = [0.0, *(fault.at for fault in faults)]
    assert all(0.49 * gap <= later - earlier <= 1.51 * gap for earlier, later in itertools.pairwise(times))
    assert times[-1] < seconds or not faults
    assert seconds - times[-1] <= 1.51 * gap
    assert all(0 <= fault.draw < 1 for fault in faults)


def test_a_seed_decides_all_and_every_kind_has_its_share() -> None:
    faults = make_schedule(3, KINDS, 600, 25)
    assert faults == make_schedule(3, KINDS, 600, 25) != make_schedule(4, KINDS, 600, 25)
    assert Counter(fault.kind for fault in faults[:12]) == {"driver": 2, "node": 4, "worker": 6}
