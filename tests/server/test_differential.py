"""Random requests through both drivers, our own server and hypercorn's ASGI: the same answers, and the same ledger rows.

Twins, accounts with the same funds, make the same calls at the same shops, one at each server. TOLLWAY_DIFFERENTIAL says
how many calls the slow test makes (100,000 take about ten minutes), TOLLWAY_DIFFERENTIAL_SEED which.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

FUNDS, PRICE = (100_000_000, 300_000), 10_000  # every other pair of twins runs out of money
TWINS = 6
PUBLIC = "http://gateway.test"
SEED = os.environ.get("TOLLWAY_DIFFERENTIAL_SEED", "1")
CALLS = int(os.environ.get("TOLLWAY_DIFFERENTIAL", "6000"))
# What is of one answer or connection, how HTTP/1.1 says that a body ends, and what depends on ends that are on their way.
OWN_FIELDS = {
    b"date",
    b"ratelimit",
    b"x-balance",
    b"x-request-id",
    b"connection",
    b"transfer-encoding",
    b"content-length",
    b"keep-alive",
    b"trailer",
}
METHODS = [b"GET"] * 6 + [b"POST"] * 4 + [b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"PROPFIND", b"TRACE"]
PATHS = [
    b"/x", b"/x", b"/x", b"/", b"/a/b/../c", b"/%2e%2e/x", b"/a%2Fb", b"//x", b"/caf\xc3\xa9", b"/x;p=1", b"/known",
    b"/status/200", b"/status/204", b"/status/304", b"/status/404", b"/status/429", b"/status/500", b"/status/503",
    b"/bytes?n=0", b"/bytes?n=1", b"/bytes?n=70000", b"/bytes?n=400000", b"/chunks?n=3&pause=1", b"/reset", b"/cut",
]  # fmt: skip
QUERIES = [b"", b"", b"", b"a=1", b"a=b&&c", b"_method=DELETE", b"q=%00", b"\xff"]
FIELDS = [
    (b"Accept", b"application/json"), (b"User-Agent", b"x/1"), (b"Range", b"bytes=0-9"), (b"X-Odd", b"\xe9"),
    (b"Content-Type", b"text/plain"), (b"Via", b"1.1 tollway"), (b"Cookie", b"a=b"), (b"X-Forwarded-For", b"1.2.3.4"),
    (b"Sec-Fetch-Site", b"cross-site"), (b"Accept-Encoding", b"gzip"), (b"Connection", b"x-odd"),
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A request but for its key. `key` says which: good, bad or none."""

    method: bytes
    shop: int
    path: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes | None
    chunked: bool
    key: str

    def sent(self, host: bytes, slug: str, agent: Agent) -> bytes:
        lines = [b"%s /publishers/%s%s HTTP/1.1" % (self.method, slug.encode(), self.path), b"Host: " + host]
        lines += [b"%s: %s" % pair for pair in self.fields]
        if self.key != "none":
            secret = agent.key if self.key == "good" else agent.key[:-4] + "AAAA"
            lines.append(b"Authorization: Bearer " + secret.encode())
        lines.append(b"Connection: close")
        body = self.body or b""
        if self.chunked:
            lines.append(b"Transfer-Encoding: chunked")
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        elif self.body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def random_call(dice: random.Random, shops: int) -> Call:
    fields = dice.sample(FIELDS, dice.choice([0, 1, 1, 2, 4]))
    if dice.random() < 0.3:  # few keys, so that many are used again
        fields.append((b"Idempotency-Key", b"key-%d" % dice.randrange(200)))
    path = dice.choice(PATHS)
    query = dice.choice(QUERIES)
    if query:
        path += (b"&" if b"?" in path else b"?") + query
    method = dice.choice(METHODS)
    has_body = method in (b"POST", b"PUT", b"PATCH") or dice.random() < 0.05
    body = dice.choice([b"", b"{}", b"x" * 100, b"y" * 70_000]) if has_body else None
    key = dice.choice(["good"] * 8 + ["none", "bad"])
    return Call(method, dice.randrange(shops), path, tuple(fields), body, has_body and dice.random() < 0.4, key)


async def answer_to(address: tuple[str, int], data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(data)
        async with asyncio.timeout(60):
            return await reader.read(-1)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def read(raw: bytes, method: bytes) -> tuple[Any, ...]:
    """Return what is to be the same of an answer: status, fields, body, and whether that is whole."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
    named = dict(fields)
    if method == b"HEAD":
        body, whole = b"", not rest
    elif named.get(b"transfer-encoding") == b"chunked":
        body, whole = unchunked(rest)
    else:
        body, whole = rest, b"content-length" not in named or int(named[b"content-length"]) == len(rest)
    if body.startswith(b"{"):  # what is of one call: its id, and until when its offer stands
        body = re.sub(rb'[0-9a-f]{8}-[0-9a-f-]{27}|"expires":\d+', b"", body)
    status = lines[0].split(b" ")[1] if lines[0] else b"reset"
    return status, sorted(pair for pair in fields if pair[0] not in OWN_FIELDS), body, whole


def unchunked(rest: bytes) -> tuple[bytes, bool]:
    body = bytearray()
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            return bytes(body), True
        body += rest[:length]
        rest = rest[length + 2 :]
    return bytes(body), False


@pytest_asyncio.fixture(scope="module")
async def gateways(services: Services, database_url: str) -> AsyncIterator[tuple[RunningGateway, RunningGateway]]:
    ours = await start_gateway(services, database_url, SERVER="tollway", PUBLIC_URL=PUBLIC)
    theirs = await start_gateway(services, database_url, SERVER="hypercorn", PUBLIC_URL=PUBLIC)
    yield ours, theirs
    await ours.stop()
    await theirs.stop()


async def shops_of(world: World) -> list[Shop]:
    metered: dict[str, Any] = {"pricing_model": "per_byte", "price_per_mib": "0.1", "reserve_max_charge": "0.05"}
    tiered: dict[str, Any] = {
        "pricing_model": "tiered",
        "price_tiers": [{"up_to": 20, "price": "0.01"}, {"price": "0.004"}],
    }
    documented = [{"path": "/known", "method": "GET", "price": "0.02"}, {"path": "/status/*", "method": "GET"}]
    return [
        await world.publisher(0),
        await world.publisher(PRICE),
        await world.publisher(PRICE, passthrough_all_headers=True, refund_on_status_codes=[404]),
        await world.publisher(PRICE, default_deny=True, endpoints=documented),
        await world.publisher(None, **tiered),
        await world.publisher(None, **metered),
    ]


async def rows_of(connection: Connection, agent: Agent) -> list[tuple[Any, ...]]:
    """Return what the ledger has of an account's calls, in their order."""
    rows = await connection.fetch(
        """
        SELECT s.outcome::text, s.reason, s.status, s.bytes_in, s.bytes_out, s.method, s.target_hash, s.body_hash,
               array_agg((t.kind, t.leg, t.amount, t.fee)::text ORDER BY t.kind, t.leg) AS transfers
          FROM ledger.transfer t LEFT JOIN ledger.settlement s ON s.exchange_id = t.cause_id
         WHERE t.wallet_id = $1 GROUP BY t.cause_id, 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY t.cause_id
        """,
        agent.wallet_id,
    )
    return [tuple(row) for row in rows]


async def compared(
    calls: int, gateways: tuple[RunningGateway, RunningGateway], world: World, connection: Connection
) -> None:
    shops = await shops_of(world)
    twins = [(await world.agent(FUNDS[i % 2]), await world.agent(FUNDS[i % 2])) for i in range(TWINS)]
    await world.told()
    addresses = [("127.0.0.1", int(gateway.url.rpartition(":")[2])) for gateway in gateways]

    async def lead(number: int) -> None:
        dice = random.Random(f"{SEED} {number}")
        for turn in range(calls // TWINS):
            # What a hold gives back may come later than the next call, which who has little would notice.
            call = random_call(dice, len(shops) - number % 2)
            sent = [call.sent(b"gateway.test", shops[call.shop].slug, agent) for agent in twins[number]]
            raws = await asyncio.gather(*(answer_to(*pair) for pair in zip(addresses, sent, strict=True)))
            ours, theirs = (read(raw, call.method) for raw in raws)
            if theirs[1:3] == ([], b""):  # refused by hypercorn itself, which says no more than that
                ours = (ours[0], *theirs[1:])
            assert ours == theirs, (number, turn, call)

    await asyncio.gather(*(lead(number) for number in range(TWINS)))
    async with asyncio.timeout(120):
        while (await proof.verify(connection)).open_exchanges:
            await asyncio.sleep(0.1)
    for ours, theirs in twins:
        assert await world.balance(ours) == await world.balance(theirs)
        assert await rows_of(connection, ours) == await rows_of(connection, theirs)


async def test_both_drivers_answer_and_book_the_same(
    gateways: tuple[RunningGateway, RunningGateway], world: World, connection: Connection
) -> None:
    await compared(600, gateways, world, connection)


@pytest.mark.slow
async def test_both_drivers_answer_and_book_the_same_for_long(
    gateways: tuple[RunningGateway, RunningGateway], world: World, connection: Connection
) -> None:
    await compared(CALLS, gateways, world, connection)
