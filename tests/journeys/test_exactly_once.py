"""Idempotency-Key: one charge, one upstream call, one answer, however often and from wherever it is asked."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")


def keyed(agent: Agent, key: str | None = None) -> dict[str, str]:
    return {**agent.headers, "Idempotency-Key": key or str(uuid4())}


async def test_asking_again_gets_the_stored_answer_free_of_charge(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    upstream.extra_headers = [("X-Dup", "1"), ("X-Dup", "2")]
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x?a=1"
    first = await gateway.client.post(path, headers=headers, content=b"body")
    upstream.extra_headers = []
    again = [await gateway.client.post(path, headers=headers, content=b"body") for _ in range(3)]
    assert first.status_code == 200
    assert "idempotency-replayed" not in first.headers
    for answer in again:
        assert (answer.status_code, answer.content) == (200, first.content)
        assert answer.headers["idempotency-replayed"] == "true"
        assert answer.headers.get_list("x-dup") == ["1", "2"]
        assert answer.headers["x-request-id"] == first.headers["x-request-id"]
        assert answer.headers.get_list("x-cost") == ["0"]
    assert (upstream.calls, await world.balance(agent)) == (1, 990_000)


@pytest.mark.parametrize("change", ["body", "path", "query", "method", "type", "publisher"])
async def test_another_request_under_the_same_key_is_422(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, change: str
) -> None:
    agent, shop, other = await world.agent(1_000_000), await world.publisher(10_000), await world.publisher(10_000)
    headers = {**keyed(agent), "Content-Type": "text/plain"}
    await gateway.client.post(f"/publishers/{shop.slug}/x", headers=headers, content=b"body")
    upstream.forget()
    method, path, body = "POST", f"/publishers/{shop.slug}/x", b"body"
    if change == "body":
        body = b"other"
    elif change == "path":
        path += "y"
    elif change == "query":
        path += "?q"
    elif change == "method":
        method = "PUT"
    elif change == "type":
        headers["Content-Type"] = "text/html"
    else:
        path = f"/publishers/{other.slug}/x"
    answer = await gateway.client.request(method, path, headers=headers, content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/key-reused")
    assert (upstream.calls, await world.balance(agent)) == (0, 990_000)


async def test_fifty_at_once_run_once(gateway: RunningGateway, world: World, upstream: RecordingUpstream) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x?ms=300"
    answers = await asyncio.gather(*(gateway.client.get(path, headers=headers) for _ in range(50)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) >= 1
    assert set(codes) <= {200, 409}
    running = next(answer for answer in answers if answer.status_code == 409)
    assert (running.json()["type"], running.headers["retry-after"]) == ("/problems/call-running", "1")
    assert (upstream.calls, await world.balance(agent)) == (1, 990_000)
    late = await gateway.client.get(path, headers=headers)
    assert (late.status_code, late.headers["idempotency-replayed"]) == (200, "true")


async def test_keys_are_unique_across_workers(
    services: Services, database_url: str, world: World, upstream: RecordingUpstream, second: RunningGateway,
    gateway: RunningGateway,
) -> None:  # fmt: skip
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x?ms=200"
    calls = [gateway.client.get(path, headers=headers) for _ in range(10)]
    calls += [second.client.get(path, headers=headers) for _ in range(10)]
    await asyncio.gather(*calls)
    assert (upstream.calls, await world.balance(agent)) == (1, 990_000)


async def test_two_accounts_may_use_the_same_key(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    first, second, shop = await world.agent(1_000_000), await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    for agent in (first, second):
        answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=keyed(agent, "the-same"))
        assert "idempotency-replayed" not in answer.headers
    assert upstream.calls == 2


async def test_a_refused_call_gives_its_key_back(gateway: RunningGateway, world: World, connection: Connection) -> None:
    from gateway.ledger import wallets

    agent, shop = await world.agent(), await world.publisher(10_000)
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x"
    assert (await gateway.client.get(path, headers=headers)).status_code == 402
    await wallets.grant(connection, agent.wallet_id, source="admin_grant", reference="later", amount=10_000)
    answer = await gateway.client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")


@pytest.mark.parametrize(
    ("path", "status"), [("/status/503", 503), ("/reset", 502), ("/status/404", 404), ("/status/204", 204)]
)
async def test_an_answer_of_the_upstream_is_repeated_whatever_it_was(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, path: str, status: int
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    headers, path = keyed(agent), f"/publishers/{shop.slug}{path}"
    answers = [await gateway.client.post(path, headers=headers, content=b"x") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status, status]
    assert answers[0].content == answers[1].content
    assert upstream.calls == 1
    assert await world.balance(agent) == (990_000 if status < 500 else 1_000_000)


async def test_an_upstream_that_was_never_reached_may_be_tried_again(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, api_url="http://127.0.0.1:1")
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x"
    for _ in range(2):
        answer = await gateway.client.get(path, headers=headers)
        assert (answer.status_code, "idempotency-replayed" in answer.headers) == (502, False)


async def test_a_large_answer_is_delivered_once_and_told_of_truthfully_afterwards(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x?n=3000000"
    first = await gateway.client.get(path, headers=headers)
    again = await gateway.client.get(path, headers=headers)
    assert len(first.content) == 3_000_000
    assert (again.status_code, again.json()["type"]) == (410, "/problems/answer-not-kept")
    assert again.json()["first_request_id"] == first.headers["x-request-id"]
    assert (upstream.calls, await world.balance(agent)) == (1, 990_000)


async def test_a_caller_who_hangs_up_and_asks_again_has_paid_once_and_gets_the_whole_answer(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    headers, path = keyed(agent), f"/publishers/{shop.slug}/chunks?n=5&pause=150"
    async with gateway.client.stream("GET", path, headers=headers) as answer:
        async for _ in answer.aiter_bytes():
            break
    for _ in range(300):
        again = await gateway.client.get(path, headers=headers)
        if again.status_code != 409:
            break
        await asyncio.sleep(0.2)
    assert again.content == b"".join(f"data: {index}\n\n".encode() for index in range(5))
    assert (upstream.calls, await world.balance(agent)) == (1, 990_000)


async def test_a_caller_who_hangs_up_before_the_head_gets_the_answer_later(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x?ms=700"
    with pytest.raises(httpx.ReadTimeout):
        await gateway.client.get(path, headers=headers, timeout=httpx.Timeout(60, read=0.2))
    for _ in range(300):
        again = await gateway.client.get(path, headers=headers)
        if again.status_code != 409:
            break
        await asyncio.sleep(0.2)
    assert again.status_code == 200
    assert (upstream.calls, await world.balance(agent)) == (1, 990_000)


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "caf\u00e9"])
async def test_a_malformed_key_is_400(gateway: RunningGateway, world: World, key: str) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"GET /publishers/{shop.slug}/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {agent.key}\r\nIdempotency-Key: {key}\r\n\r\n"
    writer.write(head.encode("latin-1"))
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert await world.balance(agent) == 1_000_000


async def test_a_key_expires(
    services: Services, database_url: str, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    bounds = {"PROXY_TOTAL_TIMEOUT": "5", "PROXY_TOTAL_TIMEOUT_MAX": "5"}
    short = await start_gateway(services, database_url, IDEMPOTENCY_LIFETIME="5", **bounds)
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x"
    await short.client.get(path, headers=headers)
    await asyncio.sleep(5.2)
    answer = await short.client.get(path, headers=headers)
    await short.stop()
    assert "idempotency-replayed" not in answer.headers
    assert upstream.calls == 2


@pytest.mark.slow
async def test_killed_mid_call_the_retry_is_paid_once_and_answered_once(
    services: Services, database_url: str, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    running = await start_gateway(services, database_url)
    headers, path = keyed(agent), f"/publishers/{shop.slug}/x?ms=3000"
    call = asyncio.create_task(httpx.AsyncClient(timeout=30).get(running.url + path, headers=headers))
    await asyncio.sleep(1)
    await running.kill()
    with pytest.raises(httpx.TransportError):
        await call
    again = await start_gateway(services, database_url)
    for _ in range(120):
        answer = await again.client.get(path, headers=headers)
        if answer.status_code != 409:
            break
        await asyncio.sleep(0.5)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")
    assert await world.balance(agent) == 990_000
    assert (await proof.verify(connection)).open_exchanges == 0
    await again.stop()


@pytest_asyncio.fixture
async def second(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Another gateway on the same database, as another host would be."""
    running = await start_gateway(services, database_url)
    yield running
    await running.stop()
