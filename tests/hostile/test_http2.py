"""HTTP/2 from the caller (hypercorn, prior knowledge): what HTTP/1.1 upstreams must never get out of it.

A downgrade is where requests are smuggled: fields that cannot stand in HTTP/1.1, lengths that lie, pseudo-fields with
blanks. The frames are made by h2 with its own checks off.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
import pytest_asyncio

from tests.hostile.shops import PRICE, Market, Tills
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent

NAMES_SERVERS = ("hypercorn",)
Fields = list[tuple[str, str]]


@dataclass
class Seen:
    """What came on a stream: 0 means reset or gone without an answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Caller:
    """One HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        config = h2.config.H2Configuration(
            client_side=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding="latin-1",
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()

    @classmethod
    async def open(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def call(self, fields: Fields, body: bytes = b"", trailers: Fields | None = None) -> Seen:
        """Send a request and read its answer."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=not body and trailers is None)
        if body:
            self.h2.send_data(stream, body, end_stream=trailers is None)
        if trailers is not None:
            self.h2.send_headers(stream, trailers, end_stream=True)
        await self.flush()
        return await self._answer(stream)

    async def _answer(self, stream: int) -> Seen:
        seen = Seen()
        async with asyncio.timeout(60):
            while data := await self._reader.read(65_536):
                try:
                    events = self.h2.receive_data(data)
                except h2.exceptions.ProtocolError:
                    return seen
                for event in events:
                    if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                        seen.headers = dict(event.headers)
                        seen.status = int(seen.headers[":status"])
                    elif isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                        seen.body += event.data
                    elif isinstance(event, h2.events.ConnectionTerminated) or (
                        isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) and event.stream_id == stream
                    ):
                        return seen
                await self.flush()
        return seen

    def close(self) -> None:
        self._writer.close()


@pytest_asyncio.fixture
async def caller(gateways: dict[str, RunningGateway]) -> Caller:
    opened = await Caller.open(gateways["hypercorn"].port)
    yield opened
    opened.close()


def fields_for(market: Market, agent: Agent, below: str = "/x", method: str = "GET", **pseudo: str) -> Fields:
    path = pseudo.get("path", f"/publishers/{market.plain.slug}{below}")
    return [
        (":method", method), (":path", path), (":scheme", pseudo.get("scheme", "http")),
        (":authority", pseudo.get("authority", "gateway")), ("authorization", f"Bearer {agent.key}"),
    ]  # fmt: skip


async def test_a_call_over_http2_is_a_paid_call(
    caller: Caller, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    agent = await tills.agent("plain")
    answer = await caller.call(fields_for(market, agent, method="POST", below="/a%2Fb?x=1&&"), b"body")
    assert (answer.status, answer.headers["x-cost"]) == (200, "0.01")
    (seen,) = upstream.requests
    assert (seen.request_line, seen.body) == ("POST /a%2Fb?x=1&& HTTP/1.1", b"body")
    assert seen.all("x-forwarded-host") == ["gateway"]
    again = await caller.call(fields_for(market, agent, method="HEAD"))
    assert (again.status, again.body) == (200, b"")
    await tills.expect(agent, 2 * PRICE)


SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
UNSPEAKABLE: dict[str, Fields] = {
    "CRLF in a value": [("x-a", f"b\r\n\r\n{SMUGGLED}")],
    "LF in a value": [("x-a", "b\nx-upstream-token: mine")],
    "NUL in a value": [("x-a", "a\0b")],
    "CRLF in a name": [("x-a: b\r\ntransfer-encoding", "chunked")],
    "colon in a name": [("x-a: b", "c")],
    "blank in a name": [("x a", "b")],
    "capital in a name": [("X-A", "b")],
    "empty name": [("", "b")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "connection": [("connection", "x-a"), ("x-a", "b")],
    "te": [("te", "chunked")],
    "two hosts": [("host", "other")],
    "content-length lies": [("content-length", "60")],
    "content-length twice": [("content-length", "0"), ("content-length", "60")],
    "content-length negative": [("content-length", "-1")],
    "content-length words": [("content-length", "four")],
    "two authorizations": [("authorization", "Bearer x")],
    "second path": [(":path", "/publishers/other/x")],
    "unknown pseudo-field": [(":cow", "moo")],
}


@pytest.mark.parametrize("case", UNSPEAKABLE)
async def test_what_http_1_cannot_say_is_never_forwarded(
    caller: Caller, market: Market, tills: Tills, upstream: RecordingUpstream, case: str
) -> None:
    upstream.forget()
    agent = await tills.agent(case)
    answer = await caller.call(fields_for(market, agent, method="POST") + UNSPEAKABLE[case], b"abcd")
    seen = [one.request_line for one in upstream.requests if one.body_digest]
    assert not any("smuggled" in line for line in seen)
    assert (answer.status in (0, 400), seen) == (True, [])
    await tills.expect(agent, 0)


@pytest.mark.parametrize(
    "pseudo",
    [
        {"path": "/publishers/{s}/x HTTP/1.1\r\nX-A: b"}, {"path": "/publishers/{s}/x y"}, {"path": "/publishers/{s}/x#y"},
        {"path": ""}, {"path": "publishers/{s}/x"}, {"path": "*"}, {"path": "/publishers/{s}/../x"}, {"path": "/publishers/{s}/\t"},
        {"method": "CONNECT"}, {"method": "TRACE"}, {"method": "GET /y HTTP/1.1\r\nX-A: b"}, {"method": "G T"}, {"method": ""},
        {"authority": "a@gateway"}, {"authority": "gateway/x"}, {"authority": "gateway\r\nX-A: b"}, {"authority": ""},
        {"scheme": "http\r\nX-A: b"},
    ],
    ids=lambda pseudo: " ".join(f"{name}={value!r}" for name, value in pseudo.items()),
)  # fmt: skip
async def test_no_pseudo_field_becomes_another_request(
    caller: Caller, market: Market, tills: Tills, upstream: RecordingUpstream, pseudo: dict[str, str]
) -> None:
    upstream.forget()
    agent = await tills.agent(str(pseudo))
    method = pseudo.pop("method", "GET")
    filled = {name: value.replace("{s}", market.plain.slug) for name, value in pseudo.items()}
    answer = await caller.call(fields_for(market, agent, method=method, **filled))
    served = [one.request_line for one in upstream.requests]
    if served:  # the scheme is nobody's business here, and without an authority there is no host to forward
        assert "scheme" in pseudo or "authority" in pseudo
        assert [(line, one.all("x-a")) for line, one in zip(served, upstream.requests, strict=True)] == [
            ("GET /x HTTP/1.1", [])
        ]
        await tills.expect(agent, PRICE)
        return
    assert answer.status in (0, 400, 404, 405)
    await tills.expect(agent, 0)


async def test_trailers_over_http2_are_no_fields(
    caller: Caller, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    agent = await tills.agent("trailers")
    late = [("x-late", "1"), ("x-forwarded-for", "6.6.6.6")]
    answer = await caller.call(fields_for(market, agent, method="POST"), b"body", late)
    assert answer.status == 200
    (seen,) = upstream.requests
    assert (seen.body, seen.all("x-late"), seen.all("x-forwarded-for")) == (b"body", [], ["127.0.0.1"])
    await tills.expect(agent, PRICE)


async def test_streams_that_are_reset_at_once_cost_what_the_upstream_did(
    gateways: dict[str, RunningGateway], market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    """Rapid reset: a hundred calls opened and reset in one breath. None is free work, and the gateway serves on."""
    upstream.forget()
    agent = await tills.agent("reset")
    caller = await Caller.open(gateways["hypercorn"].port)
    for _ in range(100):
        stream = caller.h2.get_next_available_stream_id()
        caller.h2.send_headers(stream, fields_for(market, agent, below="/x?ms=100"), end_stream=True)
        caller.h2.reset_stream(stream)
    await caller.flush()
    caller.close()
    other = await Caller.open(gateways["hypercorn"].port)
    assert (await other.call(fields_for(market, agent, below="/x?ms=400"))).status == 200
    other.close()
    await tills.expect(agent, PRICE * upstream.calls)
