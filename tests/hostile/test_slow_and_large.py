"""Who takes time or room that is not his: slow heads and bodies are ended, large things refused, others served meanwhile.

The gateways here wait 7 s for a head and 3 s for the next piece of a body (conftest.py); no test measures how long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World

HELD = -1
PATIENT = 40.0  # far above every bound, so that a loaded machine is no failure


@pytest_asyncio.fixture(scope="module")
async def hasty(world: World) -> Shop:
    """A publisher whose calls may take two seconds in all."""
    return await world.publisher(PRICE, total_timeout_seconds=2)


async def drip(wire: Wire, piece: bytes) -> None:
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        while not wire.writer.is_closing():
            await wire.send(piece)
            await asyncio.sleep(0.25)


async def ends(port: int, first: bytes, piece: bytes = b"") -> int:
    """Send, and go on sending a piece at a time; return the last status that came before the gateway closed, or 0."""
    wire = await Wire.open(port)
    await wire.send(first)
    dripping = asyncio.create_task(drip(wire, piece)) if piece else None
    try:
        everything = await wire.rest(PATIENT)
        if not (wire.reader.at_eof() or wire.reader.exception()):
            return HELD
    except ConnectionError:
        everything = b""
    finally:
        wire.close()
        if dripping is not None:
            dripping.cancel()
    lines = [line for line in everything.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return int(lines[-1].split(b" ")[1]) if lines else 0


async def test_slow_senders_are_ended_and_others_served_meanwhile(
    gateways: dict[str, RunningGateway], market: Market, hasty: Shop, tills: Tills, upstream: RecordingUpstream
) -> None:
    agent = await tills.agent("slow")
    head = request("POST", f"/publishers/{market.plain.slug}/x", key=agent.key)[:-2]
    slow: dict[str, Callable[[int], Awaitable[int]]] = {
        "says nothing": lambda port: ends(port, b""),
        "half a request line": lambda port: ends(port, b"GET /publ"),
        "a head by bytes": lambda port: ends(port, b"GET /x HTTP/1.1\r\nHost: g\r\nX-A: ", b"a"),
        "a head without end": lambda port: ends(port, b"GET /x HTTP/1.1\r\nHost: g\r\n", b"X-A: a\r\n"),
        "idle after a call": lambda port: ends(port, market.ask("GET", "/free", shop=market.free)),
        "half a head after a call": lambda port: ends(port, market.ask("GET", "/free", shop=market.free) + b"GET /"),
        "no body": lambda port: ends(port, head + b"Content-Length: 5\r\n\r\n"),
        "half a body": lambda port: ends(port, head + b"Content-Length: 50000\r\n\r\n" + b"a" * 20_000),
        "half a chunk": lambda port: ends(port, head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"),
        "100 and no body": lambda port: ends(port, head + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
        "a body by bytes": lambda port: ends(
            port, head.replace(market.plain.slug.encode(), hasty.slug.encode()) + b"Content-Length: 5000\r\n\r\n", b"a"
        ),
        "an admin body by bytes": lambda port: ends(port, request("POST", "/auth/agent", "Content-Length: 5000"), b" "),
        "no admin body": lambda port: ends(port, request("POST", "/auth/agent", "Content-Length: 5000")),
    }  # fmt: skip
    upstream.forget()
    running = {
        (server, name): asyncio.ensure_future(way(gateway.port))
        for server, gateway in gateways.items()
        for name, way in slow.items()
    }
    await asyncio.sleep(0.5)
    for gateway in gateways.values():
        assert (await ask(gateway.port, market.ask("GET", "/served"))).status == 200
    statuses = dict(zip(running, await asyncio.gather(*running.values()), strict=True))
    assert not [way for way, status in statuses.items() if status == HELD], "the gateway still holds connections"
    for server in gateways:
        for name in (
            "no body",
            "half a body",
            "half a chunk",
            "100 and no body",
            "an admin body by bytes",
            "no admin body",
        ):
            assert statuses[server, name] == 408, (server, name, statuses[server, name])
        assert statuses[server, "a body by bytes"] == 504, server
    assert not [one for one in upstream.requests if one.method == "POST" and one.body_digest], "a body was made up"
    await tills.expect(agent, 0)


async def test_a_thousand_idle_connections_lock_nobody_out(gateways: dict[str, RunningGateway], market: Market) -> None:
    for gateway in gateways.values():
        idle = await asyncio.gather(*(Wire.open(gateway.port) for _ in range(300)))
        try:
            await asyncio.gather(*(wire.send(b"GET / HTTP/1.1\r\n") for wire in idle))
            assert (await ask(gateway.port, market.ask("GET", "/x"))).status == 200
        finally:
            for wire in idle:
                wire.close()


@pytest.mark.parametrize(
    ("what", "status"),
    [("target of 9 KB", 414), ("query of 9 KB", 414), ("one field of 70 KB", 431), ("90 fields of 1 KB", 431), ("110 fields", 200)],
)  # fmt: skip
async def test_a_large_head_is_refused_by_its_name(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, what: str, status: int
) -> None:
    upstream.forget()
    below, fields = "/x", []
    if what == "target of 9 KB":
        below = "/" + "a" * 9_000
    elif what == "query of 9 KB":
        below = "/x?" + "a" * 9_000
    elif what == "one field of 70 KB":
        fields = ["X-Long: " + "a" * 70_000]
    elif what == "90 fields of 1 KB":
        fields = [f"X-{number}: " + "a" * 1_000 for number in range(90)]
    else:
        fields = [f"X-{number}: 1" for number in range(110)]
    answer = await ask(wired.port, market.ask("GET", below, *fields))
    assert (answer.status, upstream.calls) == (status, int(status == 200))


@pytest.mark.parametrize("how", ["announced", "chunked"])
@pytest.mark.parametrize("path", ["/auth/agent", "/organizations/default/api-keys", "/wallet/deposit"])
async def test_a_large_admin_body_is_413(wired: RunningGateway, market: Market, path: str, how: str) -> None:
    """Announced: before a byte of it is read. Not announced: as soon as it has passed the limit."""
    framing = "Content-Length: 50000000" if how == "announced" else "Transfer-Encoding: chunked"
    wire = await Wire.open(wired.port)
    await wire.send(request("POST", path, framing, "Content-Type: application/json", key=market.agent.key))
    if how == "chunked":
        with contextlib.suppress(ConnectionError):
            for _ in range(24):
                await wire.send(b"ffff\r\n" + b'"' * 65_535 + b"\r\n")
    answer = await wire.answer()
    wire.close()
    assert (answer.status, answer.get("content-type")) == (413, "application/problem+json")


BOMBS = {
    "nested": b"[" * 500_000,
    "nested objects": b'{"a":' * 100_000,
    "quotation marks": b'"' * 900_000,
    "backslashes": b'{"name":"' + b"\\" * 900_000 + b'"}',
    "digits": b'{"name":' + b"9" * 900_000 + b"}",
    "exponent": b'{"name":1e999999999}',
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(80_000)) + b"}",
    "escapes": b'{"name":"' + b"\\ud83d" * 100_000 + b'"}',
    "name of 900 KB": b'{"name":"' + b"a" * 900_000 + b'"}',
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_body_that_is_dear_to_read_is_refused_and_nobody_waits(
    gateway: RunningGateway, market: Market, bomb: str
) -> None:
    raw = request("POST", "/auth/agent", "Content-Type: application/json", body=BOMBS[bomb])
    bombs = [asyncio.create_task(ask(gateway.port, raw, seconds=PATIENT)) for _ in range(4)]
    assert (await ask(gateway.port, market.ask("GET", "/x"), seconds=PATIENT)).status == 200
    assert {(await one).status for one in bombs} == {400}


TANGLED = {
    "semicolons": "/" + ";" * 7_000, "slashes": "/" * 7_000, "escapes": "/" + "%25" * 2_300, "dots": "/" + "a." * 3_500,
    "parameters": "/x?" + "&" * 7_000, "equals": "/x?" + "=" * 7_000, "braces": "/" + "{}" * 3_000, "deep": "/" + "a/" * 3_500,
    "method": "/x?" + "_method=POST&" * 500,
}  # fmt: skip


@pytest.mark.parametrize("tangle", TANGLED)
async def test_a_tangled_target_is_read_in_a_moment(gateway: RunningGateway, market: Market, tangle: str) -> None:
    """Twenty at once, answered within the patience of `ask`: a reader that backtracks would take minutes."""
    raw = market.ask("POST", TANGLED[tangle], shop=market.dear)
    answers = await asyncio.gather(*(ask(gateway.port, raw) for _ in range(20)))
    assert {answer.status for answer in answers} <= {200, 400, 414}


async def test_a_caller_who_reads_nothing_does_not_fill_the_memory(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    """The upstream is stopped by backpressure: it cannot send 200 MB into a pipe that nobody empties."""
    sent = asyncio.get_running_loop().create_future()

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        count = 0
        try:
            while count < 200_000_000:
                writer.write(b"x" * 100_000)
                count += 100_000
                async with asyncio.timeout(0.4):
                    await writer.drain()
        except TimeoutError:
            pass
        sent.set_result(count)
        writer.transport.abort()

    scripted.early["flood"] = flood
    wire = await Wire.open(wired.port, limit=1)
    await wire.send(market.ask("GET", "/flood", shop=market.scripted))
    async with asyncio.timeout(PATIENT):
        assert await sent < 60_000_000
    wire.close()


async def test_metrics_do_not_grow_with_what_callers_make_up(gateway: RunningGateway, market: Market) -> None:
    async def series() -> int:
        return len((await ask(gateway.port, request("GET", "/metrics"))).body.splitlines())

    async def make_up(number: int) -> None:
        for raw in (
            request("GET", f"/publishers/made-up-{number}/x"),
            market.ask(f"METHOD{number}", f"/{number}?{number}", f"User-Agent: {number}", f"X-{number}: {number}"),
            request("GET", f"/made-up/{number}", f"Origin: {number}", host=f"host{number}"),
            request("GET", f"/publishers/{market.plain.slug}/x", key=f"seren_{number:016x}_{'a' * 43}"),
        ):
            await ask(gateway.port, raw)

    await make_up(0)
    before = await series()
    await asyncio.gather(*(make_up(number) for number in range(1, 60)))
    assert await series() - before < 10
