"""Publishers that lead back to the gateway, and callers that look for a way around a limit (EX-37, EX-38)."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.talk import seen_by
from tests.hostile.wire import ask, request
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World


async def test_via_grows_by_one_at_each_hop(wired: RunningGateway, market: Market, upstream: RecordingUpstream) -> None:
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", "Via: 1.0 fred", "Via: 1.1 tollway"))
    assert seen.all("via") == ["1.0 fred, 1.1 tollway, 1.1 tollway"]


async def test_a_publisher_that_leads_to_itself_ends(wired: RunningGateway, world: World, tills: Tills) -> None:
    """With an agent's key as the publisher's own each turn would be a paid call that makes another one."""
    agent, owner = await tills.agent("caller"), await tills.agent("owner")
    number = next(_numbers)
    shop = await world.publisher(
        PRICE,
        api_url=f"{wired.url}/publishers/loop-{number}",
        upstream_headers={"Authorization": f"Bearer {owner.key}"},
    )
    await world.connection.execute("UPDATE catalog.publisher SET slug = $1 WHERE id = $2", f"loop-{number}", shop.id)
    for _ in range(3000):
        answer = await ask(wired.port, request("GET", f"/publishers/loop-{number}/x", key=agent.key))
        if answer.status != 404:
            break
        await asyncio.sleep(0.02)
    assert (answer.status, b"loop-detected" in answer.body) == (508, True)
    await tills.expect(agent, 0)
    await tills.expect(owner, 0)


_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module")
async def tight(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway with small limits: 10 calls without a key, 8 wrong keys, 5 registrations; it trusts no proxy."""
    small = {"LIMITS_PER_ADDRESS": "10", "LIMITS_GUESSES": "8", "LIMITS_REGISTRATIONS": "5", "LIMITS_PER_KEY": "12"}
    running = await start_gateway(services, database_url, **small)
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def limited(world: World) -> Shop:
    return await world.publisher(PRICE, max_queries_per_minute=5)


# 127.0.0.1 to 127.0.0.250 are addresses of their own: a test that asks from one does not use up another's budget.
def elsewhere(number: int) -> str:
    return f"127.0.0.{100 + number}"


async def from_address(port: int, address: str, raw: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(raw)
    async with asyncio.timeout(60):
        head = await reader.readuntil(b"\r\n")
    writer.close()
    return int(head.split(b" ")[1])


DISGUISES = [
    "X-Forwarded-For: 10.0.0.{n}", "X-Real-IP: 10.0.0.{n}", "Forwarded: for=10.0.0.{n}", "True-Client-IP: 10.0.0.{n}",
    "CF-Connecting-IP: 10.0.0.{n}", "X-Client-IP: 10.0.0.{n}", "Via: 1.1 proxy{n}", "X-Forwarded-For: 127.0.0.1, 10.0.0.{n}",
]  # fmt: skip


@pytest.mark.parametrize("disguise", DISGUISES)
async def test_nobody_gets_a_second_address_by_saying_so(tight: RunningGateway, market: Market, disguise: str) -> None:
    address = elsewhere(DISGUISES.index(disguise))
    path = f"/publishers/{market.plain.slug}/x"
    raws = [request("GET", path, disguise.replace("{n}", str(number))) for number in range(20)]
    statuses = Counter([await from_address(tight.port, address, raw) for raw in raws])
    assert set(statuses) == {402, 429}
    assert statuses[402] in (10, 11)


async def test_guesses_are_counted_however_they_are_spelled(tight: RunningGateway, market: Market) -> None:
    address = elsewhere(20)
    statuses: Counter[int] = Counter()
    for number in range(24):
        path = f"/publishers/{market.plain.slug}/{number}" if number % 2 else "/wallet/balance"
        scheme = "Bearer" if number % 3 else "bearer"
        raw = request(
            "GET", path, f"Authorization: {scheme} seren_{number:016x}_{'a' * 43}", f"X-Forwarded-For: 1.1.1.{number}"
        )
        statuses[await from_address(tight.port, address, raw)] += 1
    assert set(statuses) == {401, 429}
    assert statuses[401] <= 10


async def test_registrations_are_counted_by_address_not_by_name(tight: RunningGateway) -> None:
    """Every registration brings a bonus: they must not be farmed."""
    address = elsewhere(21)
    statuses = [
        await from_address(
            tight.port, address,
            request("POST", "/auth/agent", "Content-Type: application/json", f"X-Forwarded-For: 2.2.2.{number}", body=b'{"name":"farm-%d"}' % number),
        )
        for number in range(9)
    ]  # fmt: skip
    assert Counter(statuses) == {201: 5, 429: 4}


SPELLINGS = ["/x", "/X", "/x/", "//x", "/%78", "/x;a", "/x?a={n}", "/y/{n}", "/"]


async def test_a_publishers_limit_counts_every_spelling_and_method(
    tight: RunningGateway, world: World, limited: Shop, tills: Tills, upstream: RecordingUpstream
) -> None:
    agent = await tills.agent("spellings")
    upstream.forget()
    statuses: Counter[int] = Counter()
    for number, below in enumerate(SPELLINGS * 2):
        method = ("GET", "POST", "PUT", "OPTIONS")[number % 4]
        key = f"Idempotency-Key: {number}"
        raw = request(method, f"/publishers/{limited.slug}{below.replace('{n}', str(number))}", key, key=agent.key)
        statuses[(await ask(tight.port, raw)).status] += 1
    assert statuses[200] in (5, 6)
    assert statuses[200] + statuses[429] == len(SPELLINGS) * 2
    await tills.expect(agent, statuses[200] * PRICE)
    assert upstream.calls == statuses[200]


async def test_a_keys_limit_is_one_for_paid_calls_and_the_admin_api(
    tight: RunningGateway, market: Market, tills: Tills
) -> None:
    agent = await tills.agent("one budget")
    raws = [
        request("GET", "/wallet/balance" if number % 2 else f"/publishers/{market.plain.slug}/x", key=agent.key)
        for number in range(24)
    ]
    answers = [await ask(tight.port, raw) for raw in raws]
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses[200] in (12, 13)
    for answer in answers:
        if answer.status == 429:
            assert int(answer.get("retry-after")) >= 1
    await tills.expect(agent, sum(answer.status == 200 for answer in answers[::2]) * PRICE)
