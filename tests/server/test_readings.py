"""What the server accepts, two other parsers read in the same way, or not at all: nothing is left to smuggle in.

Valid requests are changed at random, byte by byte, towards what parsers differ in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import h11
import httptools
import pytest

from gateway.errors import Problem
from gateway.server.body import Body, ChunkedBody, SizedBody
from gateway.server.head import CHUNKED, parse

SEEDS = (
    b"GET /a/b?c=d HTTP/1.1\r\nHost: a:80\r\nX-A: b\r\nConnection: keep-alive\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST http://a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nX: t\r\n\r\n",
    b"PUT / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \t b  c \r\nx-a:\r\nUpgrade: foo\r\n\r\n",
)
ODD = (
    b"\r", b"\n", b"\r\n", b"\0", b"\t", b" ", b":", b";", b",", b"=", b'"', b"0", b"5", b"+", b"-", b"_", b"0x", b"\x0b", b"\x0c",
    b"\x7f", b"\x85", b"\xa0", b"\xff", b"#", b"*", b"/", b"http://b", b"chunked", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: b\r\n", b"HTTP/1.0", b"\r\n\r\n",
)  # fmt: skip
NUMBER = 60_000


@dataclass
class Reading:
    """One request as a parser has read it: `rest` is what it takes for the next one."""

    method: bytes = b""
    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    rest: bytes = b""


def ours(data: bytes) -> Reading | None:
    """Read as the server does; None for what is refused, or not whole."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    try:
        head = parse(data[:end])
        read = Reading(head.method, head.target, [(name.lower(), value) for name, value in head.raw_fields])
        if not head.length:
            read.rest = data[end:]
            return read
        body: Body = ChunkedBody() if head.length == CHUNKED else SizedBody(head.length)
        read.body, read.rest = body.feed(data[end:])
    except Problem:
        return None
    return read if body.ended else None


def by_h11(data: bytes) -> Reading | None:
    connection, read = h11.Connection(h11.SERVER), Reading()
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                read.method, read.target, read.fields = event.method, event.target, list(event.headers)
            elif isinstance(event, h11.Data):
                read.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                read.rest = bytes(connection.trailing_data[0])
                return read
            else:
                return None
    except h11.RemoteProtocolError:
        return None


class Llhttp:
    """Collects the first request of some bytes."""

    def __init__(self) -> None:
        self.read, self.in_head, self.ended = Reading(), True, False

    def on_url(self, url: bytes) -> None:
        if not self.ended:
            self.read.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head and not self.ended:
            self.read.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_head = False

    def on_body(self, body: bytes) -> None:
        if not self.ended:
            self.read.body += body

    def on_message_complete(self) -> None:
        self.ended = True


def by_llhttp(data: bytes) -> Reading | None:
    """Read as llhttp does, byte by byte, so that it is known where a request ends."""
    collected = Llhttp()
    parser = httptools.HttpRequestParser(collected)
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except httptools.HttpParserUpgrade:
            return None  # another question: the server goes by other rules, which are tested
        except httptools.HttpParserError:
            return None
        if collected.ended:
            collected.read.method = parser.get_method()
            collected.read.rest = data[at + 1 :]
            return collected.read
    return None


def changed(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        piece = chance.choice(ODD)
        match chance.randrange(3):
            case 0:
                data[at:at] = piece
            case 1:
                data[at : at + len(piece)] = piece
            case _:
                del data[at : at + chance.randint(1, 3)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_others_read_the_same_or_nothing(seed: int) -> None:
    chance = random.Random(seed)
    accepted = compared = 0
    for _ in range(NUMBER // len(SEEDS)):
        data = changed(SEEDS[seed], chance) + SEEDS[0]
        read = ours(data)
        if read is None:
            continue
        accepted += 1
        for other in (by_h11(data), by_llhttp(data)):
            if other is not None:
                compared += 1
                assert other == read, data
    assert accepted > 100
    assert compared > accepted
