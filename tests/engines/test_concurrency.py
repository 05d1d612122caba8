"""How many requests run at once: the limit with a clock of our own, and the gate that keeps it."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.engines.concurrency import AdaptiveLimit, Gate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def limit_of(maximum: int, cooldown: float = 1.0) -> tuple[AdaptiveLimit, Clock]:
    clock = Clock()
    return AdaptiveLimit(maximum, cooldown_seconds=cooldown, clock=clock), clock


def answer_a_round(limit: AdaptiveLimit, clock: Clock) -> None:
    running = limit.limit
    for _ in range(running):
        limit.answered(clock.now, running)


def test_it_starts_at_eight_or_at_the_maximum() -> None:
    assert limit_of(64)[0].limit == 8
    assert limit_of(3)[0].limit == 3


def test_it_doubles_a_round_until_the_first_refusal_and_then_grows_by_one() -> None:
    limit, clock = limit_of(1000)
    answer_a_round(limit, clock)
    answer_a_round(limit, clock)
    assert limit.limit == 32
    limit.refused(clock.now)
    assert limit.limit == 16
    clock.now += 1.0
    sizes = []
    for _ in range(4):
        answer_a_round(limit, clock)
        clock.now += 1.0
        sizes.append(limit.limit)
    assert sizes == [16, 17, 18, 19]  # 16.97, 17.9, …: a little less than one a round


def test_a_burst_of_refusals_halves_it_once() -> None:
    limit, clock = limit_of(64)
    begun = clock.now
    clock.now += 0.5
    for _ in range(8):
        limit.refused(begun)
    assert limit.limit == 4
    clock.now += 0.9
    limit.refused(clock.now)  # begun within the cooldown: the limit it met was not yet in force
    limit.answered(clock.now, 4)
    assert limit.limit == 4
    clock.now += 0.1
    limit.refused(clock.now)
    assert limit.limit == 2


def test_it_never_falls_below_one() -> None:
    limit, clock = limit_of(64)
    for _ in range(10):
        limit.refused(clock.now)
        clock.now += 1.0
    assert limit.limit == 1


def test_answers_of_a_quiet_time_do_not_raise_it() -> None:
    limit, clock = limit_of(64)
    for _ in range(100):
        limit.answered(clock.now, 4)
    assert limit.limit == 8
    limit.answered(clock.now, 5)
    assert limit.limit == 9


def test_a_pause_holds_until_its_end_and_is_never_shortened() -> None:
    limit, clock = limit_of(64)
    limit.refused(clock.now, pause_seconds=20.0)
    limit.refused(clock.now, pause_seconds=5.0)
    assert limit.pause_seconds == 20.0
    clock.now += 19.0
    assert limit.pause_seconds == 1.0
    clock.now += 2.0
    assert limit.pause_seconds == 0.0


@settings(deadline=None)
@given(
    maximum=st.integers(1, 300),
    events=st.lists(st.tuples(st.booleans(), st.floats(0, 3), st.floats(0, 3))),
)
def test_whatever_happens_it_stays_within_its_bounds(maximum, events) -> None:
    limit, clock = limit_of(maximum)
    for is_answer, passed, began_before in events:
        clock.now += passed
        before = limit.limit
        if is_answer:
            limit.answered(clock.now - began_before, limit.limit)
            assert before <= limit.limit <= before + 1
        else:
            limit.refused(clock.now - began_before)
            assert limit.limit <= before
        assert 1 <= limit.limit <= maximum


@settings(deadline=None, max_examples=30)
@given(capacity=st.integers(1, 100))
def test_it_settles_near_what_the_endpoint_takes(capacity) -> None:
    """A round trip a second; whatever is beyond the capacity is refused."""
    limit, clock = limit_of(256, cooldown=0.5)
    sizes = []
    for _ in range(300):
        size, begun = limit.limit, clock.now
        sizes.append(size)
        clock.now += 1.0
        for _ in range(max(0, size - capacity)):
            limit.refused(begun)
        for _ in range(min(size, capacity)):
            limit.answered(begun, size)
    late = sizes[200:]
    assert max(late) <= capacity + 1
    assert min(late) >= capacity // 2
    assert sum(late) / len(late) >= 0.6 * capacity


def test_the_gate_lets_in_as_many_as_the_limit_in_the_order_of_their_arrival() -> None:
    limit, clock = limit_of(3)
    gate, order, most = Gate(limit), [], 0

    async def request(number: int) -> None:
        nonlocal most
        async with gate.place() as begun_at:
            assert begun_at == clock.now
            order.append(number)
            most = max(most, gate.running)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(request(number) for number in range(20)))

    asyncio.run(all_of_them())
    assert (order, most, gate.running) == (list(range(20)), 3, 0)


def test_who_stops_waiting_takes_no_place() -> None:
    gate = Gate(limit_of(1)[0])

    async def request() -> None:
        async with gate.place():
            await asyncio.sleep(0.01)

    async def some_are_cancelled() -> None:
        tasks = [asyncio.create_task(request()) for _ in range(6)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one).__name__ for one in results].count("CancelledError") == 2
        await request()

    asyncio.run(some_are_cancelled())
    assert gate.running == 0


def test_nobody_enters_during_a_pause_and_everybody_after_it() -> None:
    limit = AdaptiveLimit(8)
    gate = Gate(limit)

    async def request() -> float:
        async with gate.place() as begun_at:
            return begun_at

    async def after_a_refusal() -> list[float]:
        limit.refused(limit.clock(), pause_seconds=0.15)
        end = limit.clock() + limit.pause_seconds
        return [begun_at - end for begun_at in await asyncio.gather(*(request() for _ in range(10)))]

    waits = asyncio.run(after_a_refusal())
    assert min(waits) >= 0 and max(waits) < 0.1
    # A pause that was still on when its event loop ended holds up no later one.
    limit.refused(limit.clock(), pause_seconds=0.05)
    assert asyncio.run(request()) > 0
