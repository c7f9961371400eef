"""The framing rules beyond the parser's."""

from __future__ import annotations

import pytest

from gateway.upstreams.http.errors import ProtocolError
from gateway.upstreams.http.framing import MAX_FIELDS, asks_to_close, body_framing, check_head, ends_exactly

CHUNKED = (b"Transfer-Encoding", b"chunked")
LENGTH = (b"content-length", b"3")


@pytest.mark.parametrize(
    ("status", "is_head", "fields", "framing"),
    [
        (200, False, [LENGTH], "length"),
        (200, False, [CHUNKED], "chunked"),
        (200, False, [(b"transfer-encoding", b" Chunked\t")], "chunked"),
        (200, False, [], "close"),
        (204, False, [LENGTH], "none"),
        (304, False, [LENGTH], "none"),
        (200, True, [LENGTH], "none"),
        (200, True, [CHUNKED], "none"),
    ],
)
def test_how_a_body_ends(status, is_head, fields, framing):
    assert body_framing(status, is_head, "1.1", fields) == framing


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("1.1", [(b"Transfer-Encoding", b"gzip, chunked")]),
        ("1.1", [(b"Transfer-Encoding", b"gzip")]),
        ("1.1", [(b"Transfer-Encoding", b"chunked, chunked")]),
        ("1.1", [CHUNKED, CHUNKED]),
        ("1.0", [CHUNKED]),
    ],
)
def test_other_transfer_codings_are_refused(version, fields):
    with pytest.raises(ProtocolError):
        body_framing(200, False, version, fields)


def test_heads_are_bounded_and_of_a_known_version():
    check_head(200, "1.1", [(b"a", b"b")] * MAX_FIELDS, 70_000)
    for status, version, fields in (
        (200, "2.0", []),
        (200, "0.9", []),
        (99, "1.1", []),
        (200, "1.1", [(b"a", b"b")] * (MAX_FIELDS + 1)),
        (200, "1.1", [(b"a", b"b" * 65_536)]),
    ):
        with pytest.raises(ProtocolError):
            check_head(status, version, fields, 70_000)


@pytest.mark.parametrize(
    ("version", "fields", "close"),
    [
        ("1.1", [], False),
        ("1.1", [(b"Connection", b"Close")], True),
        ("1.1", [(b"connection", b"x, close")], True),
        ("1.0", [], True),
        ("1.0", [(b"Connection", b"keep-alive")], False),
    ],
)
def test_who_asks_to_close(version, fields, close):
    assert asks_to_close(version, fields) is close


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "framing", "head_inside", "body_size", "exact"),
    [
        (HEAD + b"ok", "length", True, 2, True),
        (HEAD + b"o\n", "length", True, 2, True),
        (HEAD + b"ok\r\n", "length", True, 2, False),
        (HEAD + b"\r\n\r\n", "length", True, 2, False),
        (b"o\n", "length", False, 2, True),
        (b"o\n\n", "length", False, 2, False),
        (b"2\r\nok\r\n0\r\n\r\n", "chunked", False, 2, True),
        (b"2\r\nok\r\n0\r\n\r\n\r\n", "chunked", False, 2, False),
        (b"0\r\nT: x\r\n\r\n", "chunked", False, 0, True),
        (b"0\r\nT: x\r\n\r\n\r", "chunked", False, 0, False),
        (b"\n", "chunked", False, 0, True),
    ],
)
def test_line_ends_behind_a_message_are_noticed(data, framing, head_inside, body_size, exact):
    assert ends_exactly(data, framing=framing, head_inside=head_inside, body_size=body_size) is exact
