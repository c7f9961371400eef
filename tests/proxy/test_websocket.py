"""WebSocket connections through the public door of every server: what they cost, what they carry, how they end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway
from tests.support.sockets import SocketUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
FUNDS = 1_000_000
MAX_MESSAGE = 200_000


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {
        "WEBSOCKET_MAX_MESSAGE": str(MAX_MESSAGE),
        "WEBSOCKET_PER_KEY": "5",
        "WEBSOCKET_PING_INTERVAL": "3",  # the test's own server answers them, on a machine that stands still at times
        "WEBSOCKET_IDLE_TIMEOUT": "8",
        "WEBSOCKET_CLOSE_TIMEOUT": "1",
        "PROXY_CLIENT_TIMEOUT": "2",
        "PROXY_FIRST_BYTE_TIMEOUT": "1",
        "PROXY_IDLE_TIMEOUT": "2",
        "BREAKER_FAILURES": "0",
    }


@dataclass
class Till:
    """An agent with funds at a publisher with a price, and a gateway to call it through."""

    gateway: RunningGateway
    world: World
    books: Connection
    agent: Agent
    shop: Shop

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.gateway.port}/publishers/{self.shop.slug}{path}"

    def open(self, path: str = "/echo", headers: dict[str, str] | None = None, **options: Any) -> connect:
        sent = {**self.agent.headers, **(headers or {})}
        settings = {"close_timeout": 2, "ping_interval": None, "max_size": None, "proxy": None, **options}
        return connect(self.url(path), additional_headers=sent, **settings)

    async def refused(self, path: str = "/echo", headers: dict[str, str] | None = None, **options: Any) -> Response:
        """Try to connect and return the HTTP answer that came instead."""
        with pytest.raises(InvalidStatus) as refusal:
            async with self.open(path, headers, **options):
                pass
        return refusal.value.response

    async def end(self) -> tuple[str, str]:
        """Wait until every exchange has ended and return how the last one did: settled or refunded, and why."""
        for _ in range(1200):
            if not (await proof.verify(self.books)).open_exchanges:
                break
            await asyncio.sleep(0.05)
        row = await self.books.fetchrow("SELECT outcome, reason FROM ledger.settlement ORDER BY ended_at DESC LIMIT 1")
        return row["outcome"], row["reason"]

    async def spent(self) -> int:
        return FUNDS - await self.world.balance(self.agent)


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, sockets: SocketUpstream, gateways: dict[str, RunningGateway]) -> Shop:
    return await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)


@pytest_asyncio.fixture
async def till(
    wired: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection, shop: Shop
) -> Till:
    sockets.forget()
    return Till(wired, world, connection, await world.agent(FUNDS), shop)


def problem(answer: Response) -> str:
    return orjson.loads(answer.body)["type"]


async def closing(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end and return the Close frame that came; (None, None) when none did."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 60)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (None, None)


# --- A connection and its price ---


async def test_a_connection_is_paid_once_and_carries_messages_both_ways(till: Till, sockets: SocketUpstream) -> None:
    earned = await till.world.earned(till.shop)
    async with till.open("/echo?a=b&&c") as socket:
        for message in ("text", "grüße ☃", b"\x00\xff", "", b""):
            await socket.send(message)
            assert await socket.recv() == message
        assert await till.spent() == PRICE
    assert await till.end() == ("settled", "delivered")
    assert await till.spent() == PRICE
    assert await till.world.earned(till.shop) == earned + PRICE
    assert sockets.last.request.path == "/echo?a=b&&c"
    assert sockets.last.received == ["text", "grüße ☃", b"\x00\xff", "", b""]


async def test_the_answer_says_what_the_connection_costs(till: Till) -> None:
    async with till.open() as socket:
        assert socket.response is not None
        headers = socket.response.headers
    assert headers.get_all("X-Cost") == ["0.01"], "and never the upstream's word for it"
    assert headers["X-Balance"] == "0.99"
    assert headers["X-Upstream"] == "here"
    assert headers["X-Request-Id"]
    assert "RateLimit" in headers


async def test_the_endpoints_own_price_of_a_get_is_what_counts(
    wired: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    shop = await world.publisher(
        PRICE,
        price_per_post=90_000,
        api_url=sockets.url,
        websocket_enabled=True,
        endpoints=[{"method": "GET", "path": "/hello/{name}", "price": "0.25"}],
    )
    await asyncio.sleep(0.2)
    till = Till(wired, world, connection, agent, shop)
    async with till.open("/HELLO/x"):
        assert await till.spent() == 250_000
    await till.end()


async def test_a_free_publisher_takes_connections_without_a_key(
    wired: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    shop = await world.publisher(None, api_url=sockets.url, websocket_enabled=True)
    await asyncio.sleep(0.2)
    till = Till(wired, world, connection, await world.agent(), shop)
    async with connect(till.url("/hello/free"), proxy=None) as socket:
        assert await socket.recv() == "free"


async def test_a_receipt_says_what_went_through(till: Till) -> None:
    async with till.open("/echo") as socket:
        await socket.send("abc")
        await socket.recv()
    await till.end()
    row = await till.books.fetchrow("SELECT * FROM ledger.settlement ORDER BY ended_at DESC LIMIT 1")
    assert (row["status"], row["bytes_in"], row["bytes_out"], row["method"]) == (101, 3, 3, "GET")


# --- What the upstream sees ---


async def test_secrets_and_the_handshake_itself_stay_with_us_and_the_publishers_key_goes_on(
    wired: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    shop = await world.publisher(
        PRICE,
        api_url=sockets.url,
        websocket_enabled=True,
        allowed_passthrough_headers=["*"],
        upstream_headers={"X-Publisher-Key": "theirs"},
    )
    await asyncio.sleep(0.2)
    till = Till(wired, world, connection, agent, shop)
    async with till.open(
        "/hello/x", {"Cookie": "a=b", "X-Custom": "kept", "X-Payment": "p"}, compression="deflate"
    ) as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers, "messages are not compressed on either side"
        assert await socket.recv() == "x"
        mine = socket.request.headers["Sec-WebSocket-Key"]
    seen = sockets.last.request.headers
    assert agent.key not in str(seen)
    assert not {"Authorization", "Cookie", "X-Payment", "Sec-WebSocket-Extensions"} & set(seen)
    assert (seen["X-Custom"], seen["X-Publisher-Key"]) == ("kept", "theirs")
    assert seen["X-Forwarded-Proto"] == "http"
    assert seen["Via"] == "1.1 tollway"
    assert seen["Host"] == f"127.0.0.1:{sockets.port}"
    assert len(seen.get_all("Sec-WebSocket-Key")) == 1
    assert seen["Sec-WebSocket-Key"] != mine


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["chat", "other"], "chat"), (["x", "superchat"], "superchat"), (["x"], None), ([], None)]
)
async def test_the_upstream_chooses_the_subprotocol(
    till: Till, sockets: SocketUpstream, offered: list[str], chosen: str | None
) -> None:
    async with till.open(subprotocols=offered or None) as socket:
        assert socket.subprotocol == chosen
    asked = sockets.last.request.headers.get("Sec-WebSocket-Protocol")
    assert (asked.replace(" ", "").split(",") if asked else []) == offered


# --- Refusals before the upgrade are answers, and cost nothing ---


async def test_without_funds_the_contracts_402_comes_instead_of_the_upgrade(
    till: Till, world: World, sockets: SocketUpstream
) -> None:
    till.agent = await world.agent(4_000)
    answer = await till.refused()
    body = orjson.loads(answer.body)
    assert answer.status_code == 402
    assert body["accepts"][0]["scheme"] == "prepaid"
    assert body["accepts"][0]["extra"]["deficit"] == "0.006"
    assert await world.balance(till.agent) == 4_000
    assert sockets.handshakes == 0


@pytest.mark.parametrize("field", ["PAYMENT-SIGNATURE", "X-PAYMENT"])
async def test_a_payment_on_a_chain_buys_no_connection_and_is_not_taken(
    till: Till, sockets: SocketUpstream, field: str
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(till.url("/echo"), additional_headers={field: "e30="}, proxy=None):
            pass
    answer = refusal.value.response
    assert (answer.status_code, [offer["scheme"] for offer in orjson.loads(answer.body)["accepts"]]) == (
        402,
        ["prepaid"],
    )
    assert sockets.handshakes == 0


async def test_every_refusal_before_payment_is_an_http_answer(
    till: Till, world: World, sockets: SocketUpstream
) -> None:
    wrong = {"Authorization": "Bearer seren_0123456789abcdef_" + "a" * 43}
    answer = await till.refused(headers=wrong)
    assert (answer.status_code, problem(answer)) == (401, "/problems/unauthenticated")
    answer = await till.refused("/a/../b")
    assert (answer.status_code, problem(answer)) == (400, "/problems/invalid-target")
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(till.url("/echo"), proxy=None):
            pass
    assert refusal.value.response.status_code == 402
    plain = await world.publisher(PRICE, api_url=sockets.url)
    await asyncio.sleep(0.2)
    till.shop = plain
    answer = await till.refused()
    assert (answer.status_code, problem(answer)) == (501, "/problems/websocket-not-offered")
    till.shop = Shop(plain.id, "nobody", 0)
    answer = await till.refused()
    assert (answer.status_code, problem(answer)) == (404, "/problems/unknown-publisher")
    assert (await till.spent(), sockets.handshakes) == (0, 0)


async def test_nothing_but_publisher_calls_is_upgraded(till: Till) -> None:
    for path in ("/", "/publishers", f"/publishers/{till.shop.slug}", "/wallet/balance"):
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(f"ws://127.0.0.1:{till.gateway.port}{path}", proxy=None):
                pass
        assert refusal.value.response.status_code == 404, path
        assert problem(refusal.value.response) == "/problems/not-found"


# --- What the upstream refuses or breaks is refunded before the caller reads so ---


@pytest.mark.parametrize("status", [200, 302, 404, 503])
async def test_any_answer_but_101_costs_nothing_and_is_not_given_away(till: Till, status: int) -> None:
    answer = await till.refused(f"/deny/{status}")
    assert await till.spent() == 0, "the refund is there when the answer is"
    body = orjson.loads(answer.body)
    assert (answer.status_code, body["type"], body["upstream_status"]) == (502, "/problems/upgrade-refused", status)
    assert b"secret body" not in answer.body
    assert await till.end() == ("refunded", "upgrade_refused")


@pytest.mark.parametrize(
    ("path", "status", "kind", "reason"),
    [
        ("/wrong", 502, "upstream-invalid", "upstream_error"),
        ("/extension", 502, "upstream-invalid", "upstream_error"),
        ("/reset", 502, "upstream-invalid", "upstream_error"),
        ("/hang", 504, "upstream-timeout", "timeout"),
    ],
)
async def test_a_broken_or_silent_handshake_costs_nothing(
    till: Till, path: str, status: int, kind: str, reason: str
) -> None:
    answer = await till.refused(path)
    assert (answer.status_code, problem(answer)) == (status, f"/problems/{kind}")
    assert await till.spent() == 0
    assert await till.end() == ("refunded", reason)


async def test_a_subprotocol_that_nobody_offered_is_no_handshake(till: Till) -> None:
    answer = await till.refused(subprotocols=["unheard-of"])
    assert (answer.status_code, problem(answer)) == (502, "/problems/upstream-invalid")
    assert await till.spent() == 0


async def test_an_unreachable_upstream_costs_nothing(till: Till, world: World) -> None:
    till.shop = await world.publisher(PRICE, api_url="http://127.0.0.1:1", websocket_enabled=True)
    await asyncio.sleep(0.2)
    answer = await till.refused()
    assert (answer.status_code, problem(answer)) == (502, "/problems/upstream-unreachable")
    assert await till.spent() == 0


# --- Exactly once ---


async def test_an_idempotency_key_buys_one_connection(till: Till, sockets: SocketUpstream) -> None:
    key = {"Idempotency-Key": "connection-1"}
    async with till.open("/hello/once", key) as socket:
        assert await socket.recv() == "once"
        answer = await till.refused("/hello/once", key)
        assert (answer.status_code, problem(answer)) == (409, "/problems/call-running")
    await till.end()
    answer = await till.refused("/hello/once", key)
    assert (answer.status_code, problem(answer)) == (410, "/problems/answer-not-kept")
    answer = await till.refused("/hello/other", key)
    assert (answer.status_code, problem(answer)) == (422, "/problems/key-reused")
    plain = await till.gateway.client.get(
        f"/publishers/{till.shop.slug}/hello/once", headers={**till.agent.headers, **key}
    )
    assert plain.status_code == 422, "a call is not what the connection was"
    assert (await till.spent(), sockets.handshakes) == (PRICE, 1)


async def test_a_refused_connection_gives_its_key_back(till: Till, world: World) -> None:
    key = {"Idempotency-Key": "connection-2"}
    rich, till.agent = till.agent, await world.agent(0)
    assert (await till.refused("/hello/x", key)).status_code == 402
    till.agent = rich
    async with till.open("/hello/x", key) as socket:
        assert await socket.recv() == "x"


# --- Messages: size, fragments, backpressure ---


async def test_fragments_become_whole_messages_both_ways(till: Till) -> None:
    async with till.open("/fragments") as socket:
        assert await socket.recv() == "fragmenté"
        assert await socket.recv() == b"\x00\xff"
    async with till.open("/echo") as socket:
        await socket.send(["a", "", "bé"])
        assert await socket.recv() == "abé"


async def test_messages_up_to_the_limit_pass_and_larger_ones_end_the_connection(till: Till) -> None:
    async with till.open("/echo") as socket:
        for message in (b"x" * MAX_MESSAGE, "y" * MAX_MESSAGE):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(b"x" * (MAX_MESSAGE + 1))
        assert (await closing(socket))[0] == 1009
    async with till.open(f"/big/{MAX_MESSAGE}") as socket:
        assert len(await socket.recv()) == MAX_MESSAGE
    assert await till.end() == ("settled", "delivered")


async def test_an_upstream_that_sends_too_much_is_told_so_and_its_caller_as_well(
    till: Till, sockets: SocketUpstream
) -> None:
    async with till.open(f"/big/{MAX_MESSAGE + 1}") as socket:
        assert await closing(socket) == (1011, "the publisher's server sent too large a message")
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert sockets.last.code == 1009
    assert await till.end() == ("settled", "delivered")


async def test_a_message_that_never_ends_is_not_collected(till: Till, sockets: SocketUpstream) -> None:
    async with till.open("/crumbs/10000") as socket:
        assert (await closing(socket))[0] == 1011
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert sockets.last.sent < 16 << 20


async def test_a_caller_that_does_not_read_stops_its_upstream_and_is_cut_off_having_paid(
    till: Till, sockets: SocketUpstream
) -> None:
    socket = await till.open("/flood", max_queue=1)
    socket.transport.pause_reading()
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert sockets.last.sent < 32 << 20, "what is on its way is bounded"
    assert (sockets.last.code, sockets.last.reason) == (1001, "the client takes no messages")
    assert await till.end() == ("settled", "client_stalled")
    socket.transport.abort()


async def test_an_upstream_that_does_not_read_stops_its_caller_and_is_left(till: Till) -> None:
    socket = await till.open("/deaf")
    sent = 0
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(60):
            while sent < 256 << 20:
                await socket.send(b"x" * 100_000)
                sent += 100_000
    assert sent < 64 << 20
    assert await closing(socket) == (1011, "the publisher's server takes no messages")
    assert await till.end() == ("settled", "delivered")


# --- Ends ---


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "leaving"), (3000, "library"), (4321, "mine é")])
async def test_the_callers_close_reaches_the_upstream(
    till: Till, sockets: SocketUpstream, code: int, reason: str
) -> None:
    async with till.open() as socket:
        await socket.close(code, reason)
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert (sockets.last.code, sockets.last.reason) == (code, reason)
    assert await till.end() == ("settled", "delivered")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "leaving"), (1013, "later"), (4321, "mine é")])
async def test_the_upstreams_close_reaches_the_caller(till: Till, code: int, reason: str) -> None:
    async with till.open(f"/close/{code}/{reason}") as socket:
        assert await closing(socket) == (code, reason)
    assert await till.end() == ("settled", "delivered")


async def test_a_close_without_a_code_is_a_normal_one(till: Till, sockets: SocketUpstream) -> None:
    async with till.open("/close-without-code") as socket:
        assert (await closing(socket))[0] == 1000
    await asyncio.wait_for(sockets.last.ended.wait(), 60)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/drop", "the publisher's server dropped the connection"),
        ("/nonsense", "the publisher's server broke the WebSocket protocol"),
    ],
)
async def test_an_upstream_that_fails_is_a_1011_and_paid(till: Till, path: str, reason: str) -> None:
    async with till.open(path) as socket:
        assert await closing(socket) == (1011, reason)
    assert await till.end() == ("settled", "delivered")
    assert await till.spent() == PRICE


async def test_a_caller_that_vanishes_has_paid_and_its_upstream_is_let_go(till: Till, sockets: SocketUpstream) -> None:
    socket = await till.open()
    await socket.send("x")
    await socket.recv()
    socket.transport.abort()
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert sockets.last.code in (1001, 1005), "no server tells a lost connection from a Close frame without a code"
    assert (await till.end())[0] == "settled"


async def test_pings_are_answered_on_both_sides(till: Till) -> None:
    async with till.open("/ping") as socket:
        assert await socket.recv() == "pong came"
        await asyncio.wait_for(await socket.ping(b"caller"), 60)


async def test_a_connection_without_messages_ends_although_both_sides_live(till: Till, sockets: SocketUpstream) -> None:
    async with till.open() as socket:
        assert await closing(socket) == (1001, "no message for 8 s")
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert sockets.last.code == 1001


# --- Limits ---


async def test_a_key_has_a_number_of_connections_at_once(till: Till, world: World, sockets: SocketUpstream) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(till.open())
        answer = await till.refused()
        assert (answer.status_code, problem(answer)) == (429, "/problems/rate-limited")
        assert answer.headers["Retry-After"]
        first, till.agent = till.agent, await world.agent(FUNDS)
        async with till.open():
            pass
        till.agent = first
        assert sockets.handshakes == 6
    await till.end()
    async with till.open("/hello/again") as socket:
        assert await socket.recv() == "again"
