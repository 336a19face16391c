"""Events keep their bytes, however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcd.proxy.sse import Event, EventTooLong, Splitter, data_of

EVENTS = [b'data: {"a":1}\n\n', b"data: x\r\n\r\n", b": comment\n\n", b"event: e\rdata: y\r\r", b"data:z\ndata: w\n\n"]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({min(place, len(stream)) for place in places})
    return [stream[a:b] for a, b in zip([0, *marks], [*marks, len(stream)], strict=True)]


def fed(pieces: list[bytes]) -> tuple[list[Event], bytes]:
    splitter = Splitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.rest()


@given(
    st.lists(st.sampled_from([*EVENTS, b"\n", b"\r", b"da", b"ta: q"]), max_size=12),
    st.lists(st.integers(0, 200), max_size=12),
)
def test_the_pieces_are_the_stream(parts: list[bytes], places: list[int]) -> None:
    stream = b"".join(parts)
    events, rest = fed(cut(stream, places))
    assert b"".join(event.raw for event in events) + rest == stream


@given(st.lists(st.sampled_from(EVENTS), max_size=12), st.lists(st.integers(0, 200), max_size=12))
def test_the_data_is_the_same_however_it_is_cut(parts: list[bytes], places: list[int]) -> None:
    events, _ = fed(cut(b"".join(parts), places))
    assert [e.data for e in events if e.data is not None] == [d for p in parts if (d := data_of(p)) is not None]


def test_data_lines_are_joined_and_lose_one_space() -> None:
    assert data_of(b"data:z\ndata:  w\nid: 1\n\n") == b"z\n w"
    assert data_of(b"data\n\n") == b""
    assert data_of(b": only a comment\n\n") is None
    assert data_of(b"database: x\n\n") is None


def test_an_event_that_does_not_end_is_refused_and_not_lost() -> None:
    splitter = Splitter(limit=10)
    assert splitter.feed(b"data: 12") == []
    with pytest.raises(EventTooLong):
        splitter.feed(b"345678")
    assert splitter.rest() == b"data: 12345678"
