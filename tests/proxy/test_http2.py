"""HTTP/2 from the caller with hypercorn, over TLS and in clear: a paid call like any other, many at once, both ways.

What must never come out of a downgrade to HTTP/1.1 is in tests/hostile/test_http2.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, TextMessage

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.certificates import self_signed
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.http2 import Fields, Http2Client
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
FUNDS = 10_000_000
FORBIDDEN = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}  # RFC 9113 section 8.2.2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls") / "localhost.pem", "localhost")


@pytest_asyncio.fixture(scope="module")
async def gateways(
    services: Services, database_url: str, certificate: Path
) -> AsyncIterator[dict[str, RunningGateway]]:
    options = {"SERVER": "hypercorn", "PROXY_CLIENT_TIMEOUT": "2", "WEBSOCKET_CLOSE_TIMEOUT": "1"}
    tls = {"SERVER_TLS_CERTIFICATE": str(certificate), "SERVER_TLS_KEY": str(certificate)}
    clear, secure = await asyncio.gather(
        start_gateway(services, database_url, **options), start_gateway(services, database_url, **options, **tls)
    )
    yield {"clear": clear, "tls": secure}
    await asyncio.gather(clear.stop(), secure.stop())


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, gateways: object) -> Shop:
    return await world.publisher(PRICE, allowed_passthrough_headers=["*"])


@pytest_asyncio.fixture(params=["clear", "tls"])
async def client(
    request: pytest.FixtureRequest, gateways: dict[str, RunningGateway], certificate: Path
) -> AsyncIterator[Http2Client]:
    tls = ssl.create_default_context(cafile=certificate) if request.param == "tls" else None
    async with Http2Client(gateways[request.param].port, tls) as connected:
        yield connected


def asked(shop: Shop, agent: Agent, path: str, method: str = "GET", *more: tuple[str, str]) -> Fields:
    return [
        (":method", method), (":path", f"/publishers/{shop.slug}{path}"), (":scheme", "https"),
        (":authority", "gateway.test"), ("authorization", f"Bearer {agent.key}"), *more,
    ]  # fmt: skip


async def ends(connection: Connection, agent: Agent) -> list[tuple[str, str]]:
    """Wait until every exchange has ended, and return how this agent's did."""
    for _ in range(100):
        if not (await proof.verify(connection)).open_exchanges:
            break
        await asyncio.sleep(0.05)
    rows = await connection.fetch(
        "SELECT s.outcome, s.reason FROM ledger.settlement s JOIN ledger.transfer t ON t.cause_id = s.exchange_id"
        " WHERE t.kind = 'charge' AND t.leg = 0 AND t.wallet_id = $1 ORDER BY s.ended_at",
        agent.wallet_id,
    )
    return [(row["outcome"], row["reason"]) for row in rows]


@pytest.mark.parametrize("key", [[], [("idempotency-key", "once")]])
@pytest.mark.parametrize("wanted", [True, False])
async def test_what_a_stream_cost_is_said_behind_it_to_who_takes_trailers(
    client: Http2Client, world: World, wanted: bool, key: Fields
) -> None:
    agent = await world.agent(FUNDS)
    priced = await world.publisher(None, price_per_mib="1", reserve_max_charge="0.5", pricing_model="per_byte")
    more = [*([("te", "trailers")] if wanted else []), *key]
    answer = await client.call(asked(priced, agent, "/chunks?n=4&pause=50", "GET", *more))
    size = len(answer.body)
    assert (answer.status, size) == (200, sum(len(f"data: {n}\n\n") for n in range(4)))
    cost = f"{-(-size * 1_000_000 // (1 << 20)) / 1_000_000:f}".rstrip("0")
    assert dict(answer.headers)["x-cost-max"] == "0.5"
    assert answer.trailers == ([("x-cost", cost)] if wanted else [])


async def test_a_call_is_paid_and_its_fields_go_through_in_order_without_those_of_a_connection(
    client: Http2Client, shop: Shop, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    upstream.forget()
    upstream.extra_headers = [("X-B", "1"), ("Keep-Alive", "timeout=5"), ("X-A", "2"), ("X-B", "3"), ("X-Listed", "4")]
    upstream.extra_headers += [("Connection", "X-Listed")]
    try:
        answer = await client.call(
            asked(shop, agent, "/a%2Fb?x=1&&y", "GET", ("x-z", "1"), ("x-y", "2"), ("x-z", "3"), ("te", "trailers"))
        )
    finally:
        upstream.extra_headers = []
    assert (answer.status, answer.body[:12]) == (200, b'{"target": "')
    names = [name for name, _ in answer.headers]
    assert [pair for pair in answer.headers if pair[0] in ("x-a", "x-b")] == [("x-b", "1"), ("x-a", "2"), ("x-b", "3")]
    assert not {*FORBIDDEN, "x-listed"} & set(names)
    assert dict(answer.headers)["x-cost"] == "0.01"
    (seen,) = upstream.requests
    assert seen.request_line == "GET /a%2Fb?x=1&&y HTTP/1.1"
    assert [pair for pair in seen.headers if pair[0] in ("x-z", "x-y")] == [("x-z", "1"), ("x-y", "2"), ("x-z", "3")]
    assert seen.all("host") == [f"127.0.0.1:{upstream.port}"]
    assert seen.all("x-forwarded-host") == ["gateway.test"]
    assert not [name for name, _ in seen.headers if name.startswith(":") or name in FORBIDDEN or name == "te"]
    assert client.protocol in (None, "h2")
    assert await ends(connection, agent) == [("settled", "delivered")]


async def test_refusals_that_close_a_connection_of_http_1_arrive_as_well(
    client: Http2Client, shop: Shop, world: World
) -> None:
    agent = await world.agent(0)
    for fields, status in (
        (asked(shop, agent, "/x"), 402),
        (asked(shop, agent, "/" + "x" * 9_000), 414),
        (asked(shop, agent, "/x", "GET", ("authorization", "twice")), 400),
        (asked(Shop(shop.id, "nobody", 0), agent, "/x"), 404),
    ):
        answer = await client.call(fields)
        assert answer.status == status
        assert not FORBIDDEN & {name for name, _ in answer.headers}
        assert answer.body.startswith(b"{")


async def test_answers_and_uploads_stream_side_by_side(
    client: Http2Client, shop: Shop, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    """While one answer goes on and one upload is half way, other calls of the same connection are served whole."""
    agent = await world.agent(FUNDS)
    upstream.forget()
    going = client.send(asked(shop, agent, "/chunks?n=1000&pause=50"))
    await going.until(lambda it: it.body.count(b"\n\n") >= 2)
    upload = client.send(asked(shop, agent, "/up", "POST", ("content-type", "text/plain")), end=False)
    await client.write(upload, b"first ")
    others = await asyncio.gather(*(client.call(asked(shop, agent, f"/x?ms=20&i={index}")) for index in range(40)))
    assert {other.status for other in others} == {200}
    assert not upload.ended
    before = len(going.body)
    await client.write(upload, b"last", end=True)
    await upload.until(lambda it: it.ended)
    await going.until(lambda it: len(it.body) > before)
    assert upload.status == 200
    assert [seen.body for seen in upstream.requests if seen.method == "POST"] == [b"first last"]
    client.reset(going)
    assert (await client.call(asked(shop, agent, "/after"))).status == 200, "the connection goes on"
    found = await ends(connection, agent)
    assert sorted(set(found)) == [("settled", "client_gone"), ("settled", "delivered")]
    assert len(found) == 43
    assert FUNDS - await world.balance(agent) == 43 * PRICE


async def test_large_bodies_arrive_whole_both_ways(
    client: Http2Client, shop: Shop, world: World, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(FUNDS)
    upstream.forget()
    size = 12_000_000
    body = bytes(index % 251 for index in range(4_000)) * (size // 4_000)
    upload = client.send(asked(shop, agent, f"/up?n={size}", "POST", ("content-length", str(size))), end=False)
    await client.write(upload, body, end=True)
    await upload.until(lambda it: it.ended or it.reset, 40)
    assert (upload.status, len(upload.body)) == (200, size)
    (seen,) = upstream.requests
    assert (seen.body_size, seen.body_digest) == (size, hashlib.sha256(body).hexdigest())


async def test_a_stream_that_is_not_read_stalls_nobody_and_is_cut_off_having_paid(
    client: Http2Client, shop: Shop, world: World, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    stalled = client.send(asked(shop, agent, "/x?n=50000000"), reads=False)
    await stalled.until(lambda it: len(it.body) > 50_000)
    for _ in range(3):
        assert (await client.call(asked(shop, agent, "/x?ms=10"))).status == 200
    await stalled.until(lambda it: it.ended or it.reset, 20)
    assert stalled.reset
    assert not stalled.ended
    assert ("settled", "client_stalled") in await ends(connection, agent)


async def test_an_answer_that_breaks_off_is_a_reset_stream_and_refunded(
    client: Http2Client, shop: Shop, world: World, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    broken = await client.call(asked(shop, agent, "/cut"))
    assert (broken.status, broken.reset, broken.ended) == (200, True, False)
    assert (await client.call(asked(shop, agent, "/x"))).status == 200
    assert sorted(await ends(connection, agent)) == [("refunded", "broken_off"), ("settled", "delivered")]


async def test_an_upload_that_the_upstream_does_not_want_ends_with_its_answer_and_the_connection_goes_on(
    client: Http2Client, shop: Shop, world: World, connection: Connection
) -> None:
    poor, agent = await world.agent(0), await world.agent(FUNDS)
    refused = client.send(asked(shop, poor, "/up", "POST"), end=False)
    writing = asyncio.create_task(client.write(refused, b"x" * 3_000_000, end=True))
    await refused.until(lambda it: it.status > 0)
    assert refused.status == 402
    await writing
    assert (await client.call(asked(shop, agent, "/x"))).status == 200
    again = client.send(asked(shop, agent, "/up", "POST"), end=False)
    await client.write(again, b"x" * 300_000, end=True)
    await again.until(lambda it: it.ended)
    assert again.status == 200, "what nobody wanted has not used up the connection's window"


async def test_an_upload_that_its_upstream_does_not_take_holds_up_no_other_stream(
    client: Http2Client, shop: Shop, world: World, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)

    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await over.wait()
        writer.close()

    over = asyncio.Event()
    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stuck = await world.publisher(PRICE, api_url=f"http://127.0.0.1:{port}")
        try:
            upload = client.send(asked(stuck, agent, "/up", "POST"), end=False)
            writing = asyncio.create_task(client.write(upload, b"x" * 30_000_000))
            blocked, sent = -1, 0
            while blocked != sent:  # until no window is given any more
                await asyncio.sleep(0.3)
                blocked, sent = sent, upload.sent
            assert 0 < sent < 30_000_000
            others = await asyncio.gather(*(client.call(asked(shop, agent, f"/x?i={index}")) for index in range(20)))
            assert {other.status for other in others} == {200}
            crumbs = client.send(asked(shop, agent, "/up", "POST"), end=False)
            for _ in range(200):
                await client.write(crumbs, b"y")
            await client.write(crumbs, b"", end=True)
            await crumbs.until(lambda it: it.ended)
            assert crumbs.status == 200
            writing.cancel()
            client.reset(upload)
        finally:
            over.set()
    assert [outcome for outcome, _ in await ends(connection, agent)].count("refunded") == 1


async def test_a_websocket_over_http2_is_one_stream_and_one_price(
    client: Http2Client, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    talks = await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "gateway.test"),
        (":path", f"/publishers/{talks.slug}/echo"), ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"), ("authorization", f"Bearer {agent.key}"),
    ]  # fmt: skip
    stream = client.send(fields, end=False)
    await stream.until(lambda it: it.status > 0)
    assert (stream.status, dict(stream.headers)["sec-websocket-protocol"]) == (200, "chat")
    assert dict(stream.headers)["x-cost"] == "0.01"
    assert not FORBIDDEN & {name for name, _ in stream.headers}
    frames = Frames(ConnectionType.CLIENT)
    await client.write(stream, frames.send(TextMessage("hello")))
    await stream.until(lambda it: b"hello" in it.body)
    await client.write(stream, frames.send(CloseConnection(4000, "bye")))
    await asyncio.wait_for(sockets.last.ended.wait(), 5)
    assert (sockets.last.received, sockets.last.code, sockets.last.reason) == (["hello"], 4000, "bye")
    assert await ends(connection, agent) == [("settled", "delivered")]
