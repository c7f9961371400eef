"""What leaves is one request with one framing, or an exception."""

from __future__ import annotations

import pytest

from gateway.upstreams.http.errors import UnsafeRequest
from gateway.upstreams.http.request import ONE_WRITE, encode

from .wire import pieces


def test_head_and_small_body_are_one_byte_string_with_headers_as_given():
    request = encode(b"POST", b"/a?b=%20", [(b"hOsT", b"x"), (b"X-Empty", b""), (b"hOsT2", b" y\t\xff")], b"hi")
    assert request.data == (
        b"POST /a?b=%20 HTTP/1.1\r\nhOsT: x\r\nX-Empty: \r\nhOsT2:  y\t\xff\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert request.stream is None


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GE T", b"/", []),
        (b"", b"/", []),
        (b"GET\r\nX: y", b"/", []),
        (b"GET", b"", []),
        (b"GET", b"/a b", []),
        (b"GET", b"/a\r\nX: y", []),
        (b"GET", b"/a\n", []),
        (b"GET", b"/a\0", []),
        (b"GET", b"/\x7f", []),
        (b"GET", b"/", [(b"X", b"a\r\nY: b")]),
        (b"GET", b"/", [(b"X", b"a\n")]),
        (b"GET", b"/", [(b"X", b"\ra")]),
        (b"GET", b"/", [(b"X", b"a\0")]),
        (b"GET", b"/", [(b"X: a\r\nY", b"b")]),
        (b"GET", b"/", [(b"X ", b"b")]),
        (b"GET", b"/", [(b"", b"b")]),
        (b"GET", b"/", [(b"X:", b"b")]),
        (b"GET", b"/", [(b"X\xff", b"b")]),
        (b"GET", b"/", [(b"Content-Length", b"3")]),
        (b"GET", b"/", [(b"Transfer-Encoding", b"chunked")]),
        (b"GET", b"/", [(b"tRANSFER-eNCODING", b"gzip")]),
    ],
)
def test_nothing_that_corrupts_the_wire_is_encoded(method, target, headers):
    for _ in range(2):  # the second time validated names come out of a cache
        with pytest.raises(UnsafeRequest) as caught:
            encode(method, target, headers, None)
        assert caught.value.sent is False


@pytest.mark.parametrize(
    "lengths", [[b"1"], [b"3"], [b"+2"], [b"2, 2"], [b""], [b"-2"], [b" 2"], [b"2"] * 2, [b"0x2"], [b"9" * 19]]
)
def test_a_content_length_that_does_not_match_the_body_is_refused(lengths):
    with pytest.raises(UnsafeRequest):
        encode(b"POST", b"/", [(b"Content-Length", value) for value in lengths], b"hi")


def test_framing_is_added_exactly_once():
    given = [(b"content-LENGTH", b"2")]
    assert encode(b"POST", b"/", given, b"hi").data == b"POST / HTTP/1.1\r\ncontent-LENGTH: 2\r\n\r\nhi"
    assert encode(b"POST", b"/", [], b"").data == b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    assert encode(b"POST", b"/", [], None).data == b"POST / HTTP/1.1\r\n\r\n"


async def test_iterators_are_chunked_unless_their_length_is_given():
    chunked = encode(b"POST", b"/", [], pieces(b"x"))
    assert (chunked.data, chunked.length) == (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None)
    sized = encode(b"POST", b"/", [(b"Content-Length", b"1")], pieces(b"x"))
    assert (sized.data, sized.length) == (b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", 1)


async def test_a_large_body_is_sent_piecewise():
    body = b"z" * (2 * ONE_WRITE + 7)
    request = encode(b"PUT", b"/", [], body)
    assert request.length == len(body)
    assert request.stream is not None
    assert b"".join([piece async for piece in request.stream]) == body
