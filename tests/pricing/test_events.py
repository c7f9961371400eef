"""The reader of event streams: the same events however they are cut, and never more of them than its bound."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.events import EventReader

STREAM = (
    b"\xef\xbb\xbfdata: first\n\n: a comment\r\nevent: message\r\nid: 7\r\ndata:second\r\ndata:  line\r\n\r\n"
    b"data\rdata: third\r\rdata:\n\nretry: 10\ndatum: no\n\xef\xbb\xbfdata: no\n\ndata: last\n\n"
)
EVENTS = [b"first", b"second\n line", b"\nthird", b"last"]


def read(pieces: list[bytes], most: int = 100) -> list[bytes]:
    reader = EventReader(most)
    found = [data for piece in pieces for data in reader.take(piece)]
    assert not reader.lost
    return found


def test_events_are_their_data() -> None:
    assert read([STREAM]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_does_not_matter_where_a_stream_is_cut(places: list[int]) -> None:
    cuts = [0, *sorted(places), len(STREAM)]
    pieces = [STREAM[first:last] for first, last in itertools.pairwise(cuts) if first < last]
    assert read(pieces) == EVENTS


def test_byte_by_byte_is_the_same() -> None:
    assert read([STREAM[place : place + 1] for place in range(len(STREAM))]) == EVENTS


@pytest.mark.parametrize("rest", [b"data: x", b"data: x\n"])
def test_an_event_that_is_cut_short_is_told_at_the_end(rest: bytes) -> None:
    reader = EventReader(100)
    assert reader.take(rest) == []
    assert reader.end() == [b"x"]
    assert reader.end() == []


@pytest.mark.parametrize(
    "long", [b"data: " + b"x" * 40 + b"\n", b"data: x\n" * 40, b"data\n" * 40, b": " + b"x" * 40 + b"\n"]
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_too_long_is_passed_over_and_said(long: bytes, whole: bool) -> None:
    reader = EventReader(30)
    stream = long + b"data: of it\n\ndata: next\n\n"
    pieces = [stream] if whole else [stream[place : place + 1] for place in range(len(stream))]
    assert [data for piece in pieces for data in reader.take(piece)] == [b"next"]
    assert reader.lost


def test_a_long_stream_of_short_events_is_never_too_long() -> None:
    reader = EventReader(30)
    assert len([data for _ in range(100) for data in reader.take(b": ping\n\ndata: x\n\n")]) == 100
    assert not reader.lost
