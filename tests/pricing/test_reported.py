"""What answers say of their cost: in every form that real servers send it, cut anywhere, and nothing of what is broken."""

from __future__ import annotations

import gzip
import json
import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.reported import MOST, Reading, Watch, number, reader_for

COST = Watch("usage.cost")
TOKENS = Watch(unit_paths=("usage.input_tokens", "usage.output_tokens", "message.usage.input_tokens"))

OPENAI = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}\n\n'
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"cost":0.00014}}\n\n'
    b"data: [DONE]\n\n"
)
COUNTED_UP = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":7}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":15}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def read(body: bytes, watch: Watch = COST, kind: str = "application/json", coding: str = "", cut: int = 0) -> Reading:
    reading = Reading()
    reader = reader_for(watch, kind, coding, reading)
    for piece in (body[:cut], body[cut:]):
        reader.feed(piece)
    reader.end()
    return reading


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"usage": {"cost": 0.1}}', "0.1"),
        (b'{"usage": {"cost": "0.00000000000000000001"}}', "0.00000000000000000001"),
        (b'{"usage": {"cost": 1e-7}}', "1e-7"),
        (b'{"usage": {"cost": 12}}', "12"),
        (b'{"usage": {"cost": true}}', None),
        (b'{"usage": {"cost": -1}}', None),
        (b'{"usage": {"cost": NaN}}', None),
        (b'{"usage": {"cost": 1e999}}', None),
        (b'{"usage": {"cost": ' + b"9" * 5_000 + b"}}", None),
        (b'{"usage": {"cost": 1}', None),
        (b'{"usage": null}', None),
        (b"[" * 100_000, None),
        (b"\xff\xfe", None),
        (b"", None),
        (b'"text"', None),
    ],
)
def test_numbers_are_taken_exactly_and_nothing_else_is(body: bytes, found: str | None) -> None:
    assert read(body).values == ({} if found is None else {"usage.cost": Decimal(found)})


@given(st.integers(0, len(OPENAI)))
def test_a_stream_may_be_cut_anywhere(cut: int) -> None:
    assert read(OPENAI, kind="text/event-stream; charset=utf-8", cut=cut).values == {"usage.cost": Decimal("0.00014")}


@given(st.integers(0, len(COUNTED_UP)))
def test_the_last_word_about_each_count_is_taken(cut: int) -> None:
    assert read(COUNTED_UP, TOKENS, "text/event-stream", cut=cut).values == {
        "message.usage.input_tokens": 25,
        "usage.output_tokens": 15,
    }


def test_data_of_several_lines_ends_of_lines_and_of_streams_are_read_as_the_standard_has_them() -> None:
    assert read(b'data: {"usage":\r\ndata: {"cost": 2}}\r\n\r\n', kind="text/event-stream").values["usage.cost"] == 2
    assert read(b'data:{"usage":{"cost":3}}', kind="text/event-stream").values["usage.cost"] == 3
    assert read(b'{"a":1}\n{"usage":{"cost":4}}', kind="application/x-ndjson").values["usage.cost"] == 4


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "application/x-ndjson"])
def test_what_is_too_large_is_not_read_and_the_next_event_is(kind: str) -> None:
    large = json.dumps({"text": "x" * MOST, "usage": {"cost": 1}}).encode()
    small = b'{"usage": {"cost": 2}}'
    match kind:
        case "application/json":
            assert read(large).values == {}
        case "text/event-stream":
            body = b"data: " + large + b"\n\ndata: " + small + b"\n\n"
            assert read(body, kind=kind, cut=MOST // 2).values == {"usage.cost": 2}
        case _:
            assert read(large + b"\n" + small, kind=kind, cut=MOST // 2).values == {"usage.cost": 2}


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_answers_are_decoded_and_bombs_are_not(coding: str, pack: object) -> None:
    assert callable(pack)
    assert read(pack(b'{"usage": {"cost": 1}}'), coding=coding, cut=11).values == {"usage.cost": 1}
    assert read(pack(b'{"usage": {"cost": 1}, "text": "' + b" " * (MOST * 20) + b'"}'), coding=coding).values == {}
    assert read(b"not packed", coding=coding).values == {}
    assert read(b'{"usage": {"cost": 1}}', coding="br").values == {}


@given(st.text())
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    found = number(text)
    assert found is None or found >= 0
