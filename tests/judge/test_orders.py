"""Position bias and agreement in both orders, counted from answers."""

from hypothesis import given
from hypothesis import strategies as st

from music_ray.judge.orders import Orders
from music_ray.judge.verdict import Verdict

A, B, TIE, INVALID = Verdict


def counted(*said: tuple[Verdict, Verdict]) -> tuple[float | None, float | None]:
    orders = Orders()
    for first, second in said:
        orders.add(first, second)
    return orders.first_position_wins, orders.agreement_in_both_orders


def test_by_hand() -> None:
    assert counted() == (None, None) == counted((A, INVALID), (INVALID, INVALID))
    assert counted((TIE, TIE)) == (None, 1.0)
    assert counted((A, A), (A, A)) == (1.0, 0.0) and counted((B, B)) == (0.0, 0.0)
    assert counted((A, B), (B, A), (A, TIE), (INVALID, A)) == (3 / 5, 2 / 3)


@given(st.lists(st.sampled_from([(A, B), (B, A), (TIE, TIE)]), min_size=1))
def test_whoever_keeps_to_its_word_has_no_position_bias(said: list[tuple[Verdict, Verdict]]) -> None:
    winners = any(first is not TIE for first, _ in said)
    assert counted(*said) == (0.5 if winners else None, 1.0)
