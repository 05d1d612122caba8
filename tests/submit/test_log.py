"""A log that is read in several connections comes out once."""

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from music_ray.submit.log import LogReader


def tail_of(pieces, then=None):
    async def tail():
        for piece in pieces:
            yield piece
        if then is not None:
            raise then

    return tail


def read(reader: LogReader) -> str:
    text = ""
    while not reader.is_over:
        text += reader.take(0.05)
    return text


def test_pieces_come_in_their_order() -> None:
    reader = LogReader(tail_of(["one\n", "two\n"]))
    assert read(reader) == "one\ntwo\n"
    assert (reader.taken, reader.take(0.0)) == (8, "")


def test_a_connection_that_breaks_is_over() -> None:
    for error in (RuntimeError("closed"), ConnectionError(), TimeoutError()):
        assert read(LogReader(tail_of(["one"], then=error))) == "one"


@given(st.data(), st.lists(st.text(max_size=5), max_size=12))
def test_after_a_break_it_goes_on_where_it_was(data, pieces) -> None:
    """The server begins again from the first character, and cuts the log into other pieces."""
    whole = "".join(pieces)
    seen = data.draw(st.integers(0, len(pieces)))
    connections = iter([tail_of(pieces[:seen], then=RuntimeError("broken")), tail_of([whole[:3], whole[3:]])])
    first = LogReader(lambda: next(connections)())
    text = read(first)
    assert first.is_broken
    second = first.again()
    assert text + read(second) == whole
    assert not second.is_broken
    assert second.taken == len(whole)


def test_a_connection_that_is_given_up_is_closed() -> None:
    closed = threading.Event()

    async def silent():
        try:
            yield "a"
            await asyncio.sleep(3600)
        finally:
            closed.set()

    reader = LogReader(silent)
    assert reader.take(2.0) == "a"
    assert reader.seconds_silent < 2.0
    assert reader.again().take(0.3) == ""  # its a was taken before
    assert closed.wait(5.0)


def test_waiting_for_a_connection_that_never_ends_does_not_hold_the_program() -> None:
    never = threading.Event()

    async def silent():
        yield "a"
        never.wait()
        yield "b"

    reader = LogReader(silent)
    assert reader.take(2.0) == "a"
    assert reader.take(0.05) == ""
    assert not reader.is_over
    never.set()
    assert read(reader) == "b"
