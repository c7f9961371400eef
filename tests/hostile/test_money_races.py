"""Calls, claims and changes that race each other, over three gateways on one ledger (EX-01, EX-03, EX-12, EX-48, EX-49).

The three gateways differ in their server only; to the money they are three workers on three hosts.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof, wallets
from tests.hostile.shops import PRICE
from tests.hostile.talk import OK
from tests.hostile.wire import ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@pytest_asyncio.fixture(autouse=True)
async def sound_after_each(connection: Connection) -> AsyncIterator[None]:
    yield
    assert (await proof.verify(connection)).violations == {}


@pytest_asyncio.fixture(scope="module")
async def shop(world: World) -> Shop:
    return await world.publisher(PRICE)


Door = Callable[[], httpx.AsyncClient]


@pytest.fixture
def door(gateways: dict[str, RunningGateway]) -> Door:
    """The gateways in turn."""
    turn = itertools.cycle(gateways.values())
    return lambda: next(turn).client


async def settled_balance(world: World, agent: Agent, expected: int) -> int:
    """Return an agent's balance when it has come to `expected`, or what it stays at."""
    for _ in range(3000):
        found = await world.balance(agent)
        if found == expected:
            break
        await asyncio.sleep(0.02)
    return found


async def test_funds_for_ten_calls_buy_ten_wherever_they_are_asked_for(
    door: Door, world: World, shop: Shop, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(10 * PRICE + PRICE // 2)
    upstream.forget()
    path = f"/publishers/{shop.slug}/x"
    answers = await asyncio.gather(*(door().get(path, headers=agent.headers) for _ in range(60)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 50}
    assert (upstream.calls, await settled_balance(world, agent, PRICE // 2)) == (10, PRICE // 2)


async def test_one_key_asked_everywhere_at_once_runs_once(
    door: Door, world: World, shop: Shop, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(10 * PRICE)
    upstream.forget()
    headers, path = {**agent.headers, "Idempotency-Key": "everywhere"}, f"/publishers/{shop.slug}/x?ms=200"
    answers = await asyncio.gather(*(door().post(path, headers=headers, content=b"b") for _ in range(51)))
    codes = Counter(answer.status_code for answer in answers)
    assert codes[200] >= 1
    assert set(codes) <= {200, 409}
    assert len({answer.headers["x-request-id"] for answer in answers if answer.status_code == 200}) == 1
    assert (upstream.calls, await settled_balance(world, agent, 9 * PRICE)) == (1, 9 * PRICE)


async def test_one_key_for_two_requests_at_once_runs_one_of_them(
    door: Door, world: World, shop: Shop, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(10 * PRICE)
    for number in range(5):
        upstream.forget()
        headers = {**agent.headers, "Idempotency-Key": f"two-{number}"}
        paths = (f"/publishers/{shop.slug}/a?ms=50", f"/publishers/{shop.slug}/b?ms=50")
        answers = await asyncio.gather(*(door().get(path, headers=headers) for path in paths * 6))
        codes = Counter(answer.status_code for answer in answers)
        assert codes[422] == 6, codes
        assert upstream.calls == 1
    assert await settled_balance(world, agent, 5 * PRICE) == 5 * PRICE


async def test_charges_and_refunds_in_any_order_leave_exactly_what_was_delivered_unpaid_for(
    door: Door, world: World, shop: Shop, upstream: RecordingUpstream
) -> None:
    """Every third call fails upstream and is refunded while others draw on the same wallet to its last unit."""
    agent = await world.agent(40 * PRICE)
    paths = [f"/publishers/{shop.slug}" + ("/status/503" if number % 3 == 0 else "/x") for number in range(120)]
    answers = await asyncio.gather(*(door().get(path, headers=agent.headers) for path in paths))
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) <= {200, 402, 503}
    assert 0 < codes[200] <= 40
    for answer in answers:
        assert answer.headers["x-cost"] == ("0.01" if answer.status_code == 200 else "0")
    left = (40 - codes[200]) * PRICE
    assert await settled_balance(world, agent, left) == left
    assert Counter(one.target for one in upstream.requests)["/x"] >= codes[200]


async def test_callers_that_hang_up_at_every_moment_leave_no_exchange_open(
    gateways: dict[str, RunningGateway], world: World, shop: Shop, upstream: RecordingUpstream, connection: Connection
) -> None:
    agent = await world.agent(200 * PRICE)
    upstream.forget()
    raw = request("GET", f"/publishers/{shop.slug}/chunks?n=4&pause=10", key=agent.key)

    async def hang_up(port: int, moment: float) -> None:
        wire = await Wire.open(port)
        await wire.send(raw)
        await asyncio.sleep(moment)
        wire.writer.transport.abort()

    for gateway in gateways.values():
        await asyncio.gather(*(hang_up(gateway.port, moment / 500) for moment in range(30)))
    for _ in range(1200):
        report = await proof.verify(connection)
        if not report.open_exchanges:
            break
        await asyncio.sleep(0.05)
    assert report.open_exchanges == 0
    spent = 200 * PRICE - await world.balance(agent)
    assert spent % PRICE == 0
    assert spent // PRICE <= upstream.calls, "more was paid for than the publisher was asked for"


@pytest.mark.parametrize("path", ["/wallet/bonus/signup", "/wallet/daily/claim"])
async def test_a_bonus_claimed_everywhere_at_once_is_granted_once(door: Door, path: str) -> None:
    """EX-02: the credit is one; whoever comes second reads that it was granted already."""
    made = (await door().post("/auth/agent", json={})).json()["data"]["agent"]
    headers = {"Authorization": f"Bearer {made['api_key']}"}
    before = (await door().get("/wallet/balance", headers=headers)).json()
    answers = await asyncio.gather(*(door().post(path, headers=headers) for _ in range(12)))
    codes = Counter(answer.status_code for answer in answers)
    after = (await door().get("/wallet/balance", headers=headers)).json()
    assert codes[200] + codes[201] == 1, codes
    assert sum(codes.values()) - codes[200] - codes[201] == codes[400] + codes[409]
    assert before != after


# --- What changes while a call is under way ---


@dataclass
class Sale:
    """A publisher made through the API by an owner of its own, whose server holds each answer until it is let go."""

    owner: dict[str, Any]
    id: str
    slug: str
    upstream: ScriptedUpstream
    asked: asyncio.Event
    let_go: asyncio.Event

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.owner['api_key']}"}

    @property
    def path(self) -> str:
        return f"/organizations/{self.owner['organization_id']}/publishers/{self.id}"

    async def begin(self, port: int, agent: Agent) -> asyncio.Task[Any]:
        """Start a call and return when the publisher's server has it."""
        self.asked.clear()
        self.let_go.clear()
        call = asyncio.create_task(ask(port, request("GET", f"/publishers/{self.slug}/held", key=agent.key)))
        async with asyncio.timeout(60):
            await self.asked.wait()
        return call


_numbers = itertools.count(1)


@pytest_asyncio.fixture
async def sale(gateway: RunningGateway, scripted: ScriptedUpstream) -> Sale:
    owner = (await gateway.client.post("/auth/agent", json={})).json()["data"]["agent"]
    asked, let_go = asyncio.Event(), asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await let_go.wait()
        writer.write(OK)
        await writer.drain()

    scripted.early["held"] = hold
    scripted.answers["quick"] = OK
    slug = f"race-{next(_numbers)}-{owner['id'][-8:]}"
    body = {
        "name": "Race", "slug": slug, "publisher_category": "integration", "integration_type": "api", "api_url": scripted.url,
        "wallet_address": WALLET, "wallet_network_id": "eip155:84532", "price_per_call": "0.01",
    }  # fmt: skip
    path = f"/organizations/{owner['organization_id']}/publishers"
    made = await gateway.client.post(path, json=body, headers={"Authorization": f"Bearer {owner['api_key']}"})
    assert made.status_code == 201, made.text
    found = Sale(owner, made.json()["data"]["id"], slug, scripted, asked, let_go)
    await until(gateway, slug, 402)
    return found


async def until(gateway: RunningGateway, slug: str, status: int) -> None:
    """Wait until the gateway has heard of a change: an unpaid call of the publisher is answered so."""
    for _ in range(3000):
        if (await gateway.client.get(f"/publishers/{slug}/quick")).status_code == status:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{slug} never answered {status}")


async def test_a_key_revoked_during_a_call_ends_the_next_one(gateway: RunningGateway, world: World, sale: Sale) -> None:
    agent = await world.agent(10 * PRICE)
    call = await sale.begin(gateway.port, agent)
    listed = (await gateway.client.get("/organizations/default/api-keys", headers=agent.headers)).json()
    key = listed["data"][0]["id"] if isinstance(listed["data"], list) else listed["data"]["api_keys"][0]["id"]
    gone = await gateway.client.delete(f"/organizations/default/api-keys/{key}", headers=agent.headers)
    assert gone.status_code == 200, gone.text
    for _ in range(3000):
        answer = await gateway.client.get(f"/publishers/{sale.slug}/quick", headers=agent.headers)
        if answer.status_code == 401:
            break
        await asyncio.sleep(0.02)
    assert answer.status_code == 401
    paid_before = 10 * PRICE - await world.balance(agent)
    sale.let_go.set()
    answer = await call
    assert (answer.status, answer.get("x-cost"), answer.body) == (200, "0.01", b"ok")
    assert await settled_balance(world, agent, 10 * PRICE - paid_before) == 10 * PRICE - paid_before


async def test_a_call_costs_what_it_cost_when_it_began(gateway: RunningGateway, world: World, sale: Sale) -> None:
    agent = await world.agent(1_000 * PRICE)
    call = await sale.begin(gateway.port, agent)
    changed = await gateway.client.put(f"{sale.path}", json={"price_per_call": "0.50"}, headers=sale.headers)
    if changed.status_code != 200:
        changed = await gateway.client.put(
            f"{sale.path}/pricing", json={"price_per_call": "0.50"}, headers=sale.headers
        )
    assert changed.status_code == 200, changed.text
    for _ in range(3000):
        answer = await gateway.client.get(f"/publishers/{sale.slug}/quick")
        if answer.json()["accepts"][0]["extra"]["requiredAmount"] == "0.5":
            break
        await asyncio.sleep(0.02)
    dear = await gateway.client.get(f"/publishers/{sale.slug}/quick", headers=agent.headers)
    sale.let_go.set()
    held = await call
    assert (dear.headers["x-cost"], held.get("x-cost")) == ("0.5", "0.01")
    left = 1_000 * PRICE - 500_000 - 10_000
    assert await settled_balance(world, agent, left) == left


@pytest.mark.parametrize("fails", [False, True])
async def test_a_publisher_deleted_during_a_call_earns_it_and_no_other(
    gateway: RunningGateway, world: World, sale: Sale, fails: bool
) -> None:
    agent = await world.agent(10 * PRICE)
    call = await sale.begin(gateway.port, agent)
    gone = await gateway.client.delete(sale.path, headers=sale.headers)
    assert gone.status_code == 200, gone.text
    await until(gateway, sale.slug, 404)
    if fails:
        for writer in list(sale.upstream.writers):
            writer.transport.abort()
    sale.let_go.set()
    answer = await call
    assert answer.status == (502 if fails else 200)
    left = 10 * PRICE if fails else 9 * PRICE
    assert await settled_balance(world, agent, left) == left
    assert (await gateway.client.get(f"/publishers/{sale.slug}/quick", headers=agent.headers)).status_code == 404
    assert await world.balance(agent) == left


async def test_funds_that_arrive_during_a_refusal_are_not_lost(
    door: Door, world: World, shop: Shop, connection: Connection
) -> None:
    """Grants and calls race on one wallet; what was granted is what was spent and what is left."""
    agent = await world.agent()
    path = f"/publishers/{shop.slug}/x"

    async def grant(number: int) -> None:
        await wallets.grant(connection, agent.wallet_id, source="admin_grant", reference=f"race-{number}", amount=PRICE)

    async def grants() -> None:
        for number in range(20):
            await grant(number)

    granting = asyncio.create_task(grants())
    answers = await asyncio.gather(*(door().get(path, headers=agent.headers) for _ in range(60)))
    await granting
    served = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 402}
    assert await settled_balance(world, agent, (20 - served) * PRICE) == (20 - served) * PRICE
