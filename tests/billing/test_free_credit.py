"""Free credit never becomes money: what bonuses have paid is not paid out beyond the operator's bound, and no payout
includes a call in flight.

A thief makes agents, lets them collect what everybody gets for nothing, and has them buy from a publisher of its own.
The chain is a dead port: a payout that is taken stays queued.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.billing.credits import wallet_of
from gateway.database.pool import Connection
from gateway.ledger.wallets import deposit, grant
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import USDC

pytestmark = pytest.mark.usefixtures("sound_books")

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
CENT = 10_000
BONUS = 100 * CENT
_numbers = count(1)


async def start(services: Services, database_url: str, **settings: str) -> RunningGateway:
    return await start_gateway(
        services, database_url, CHAIN_84532_RPC="http://127.0.0.1:9", CHAIN_SIGNER_KEY="0x" + secrets.token_hex(32),
        PAYOUTS_HOLDBACK="0", PAYOUTS_MINIMUM="1", **settings,
    )  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway whose operator has set no bound."""
    running = await start(services, database_url)
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def generous(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway on the same ledger whose operator pays $0.60 of it to each owner, and $1.00 to all."""
    running = await start(
        services, database_url, PAYOUTS_PROMOTIONAL=str(60 * CENT), PAYOUTS_PROMOTIONAL_TOTAL=str(100 * CENT)
    )
    yield running
    await running.stop()


@dataclass
class Agent:
    """Somebody who registered, and what they do."""

    client: httpx.AsyncClient
    id: str
    organization_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def post(self, path: str, body: Any = None, *, expect: int = 200) -> Any:
        answer = await self.client.post(path, json=body, headers=self.headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def call(self, shop: Shop, path: str = "x", *, expect: int = 200) -> httpx.Response:
        answer = await self.client.get(f"/publishers/{shop.slug}/{path}", headers=self.headers)
        assert answer.status_code == expect, answer.text
        return answer


@dataclass
class Shop:
    """A publisher with its owner."""

    owner: Agent
    id: str
    slug: str
    asset: str

    @property
    def path(self) -> str:
        return f"/organizations/{self.owner.organization_id}/publishers/{self.id}"

    async def earned(self, client: httpx.AsyncClient | None = None) -> tuple[int, int, int]:
        """Return what can be paid out, what is held back, and what promotional credit has paid."""
        answer = await (client or self.owner.client).get(f"{self.path}/earnings", headers=self.owner.headers)
        assert answer.status_code == 200, answer.text
        row = answer.json()["data"][0]
        return row["available_atomic"], row["held_back_atomic"], row["promotional_atomic"]

    async def asks(self, amount: int | None = None, client: httpx.AsyncClient | None = None) -> httpx.Response:
        body = {"asset_id": self.asset, "amount_atomic": amount}
        return await (client or self.owner.client).post(f"{self.path}/payouts", json=body, headers=self.owner.headers)


async def agent(gateway: RunningGateway, *, claims: bool = True) -> Agent:
    answer = await gateway.client.post("/auth/agent", json={})
    assert answer.status_code == 201, answer.text
    made = answer.json()["data"]["agent"]
    someone = Agent(gateway.client, made["id"], made["organization_id"], made["api_key"])
    if claims:
        await someone.post("/wallet/bonus/signup")
    return someone


async def shop(gateway: RunningGateway, upstream: RecordingUpstream, price: str = "0.25", **more: Any) -> Shop:
    owner = await agent(gateway, claims=False)
    slug = f"farm-{next(_numbers)}-{secrets.token_hex(3)}"
    body = {
        "name": "Farm", "slug": slug, "publisher_category": "integration", "api_url": upstream.url,
        "wallet_address": WALLET, "wallet_network_id": "eip155:84532", "price_per_call": price, **more,
    }  # fmt: skip
    made = (await owner.post(f"/organizations/{owner.organization_id}/publishers", body, expect=201))["data"]
    await gateway.hears(slug)
    return Shop(owner, made["id"], slug, made["accepted_assets"][0]["id"])


async def pays(connection: Connection, buyer: Agent, amount: int, source: str = "fiat_purchase") -> None:
    """Credit an agent with money of its own, or with something else."""
    wallet = await wallet_of(connection, buyer.id, USDC)
    await grant(connection, wallet.id, source=source, reference=secrets.token_hex(8), amount=amount)


async def settled(shop: Shop, available: int, promotional: int) -> None:
    """Wait until the ends of the calls are recorded, and there is that much to pay out."""
    async with asyncio.timeout(60):
        while (found := await shop.earned())[1]:
            await asyncio.sleep(0.05)
    assert found == (available, 0, promotional)


async def test_signup_bonuses_do_not_become_money_at_a_publisher_of_ones_own(
    gateway: RunningGateway, upstream: RecordingUpstream, connection: Connection
) -> None:
    farm = await shop(gateway, upstream)
    for _ in range(3):
        puppet = await agent(gateway)
        await puppet.post("/wallet/daily/claim")
        for _ in range(4):
            await puppet.call(farm)
    await settled(farm, 0, 3 * BONUS)
    for amount in (None, 3 * BONUS, 1):
        refusal = await farm.asks(amount)
        problem = refusal.json()
        assert (refusal.status_code, problem["type"]) == (400, "/problems/earnings-short")
        assert (problem["available"], problem["promotional"]) == ("0", "3")
    assert "promotional credit" in (await farm.asks(1)).json()["detail"]
    customer = await agent(gateway, claims=False)
    await pays(connection, customer, 50 * CENT)
    await customer.call(farm)
    await settled(farm, 25 * CENT, 3 * BONUS)
    assert (await farm.asks(25 * CENT + 1)).status_code == 400
    assert (await farm.asks()).status_code == 201
    await settled(farm, 0, 3 * BONUS)


@pytest.mark.parametrize(
    ("source", "is_paid_out"),
    [("signup_bonus", False), ("referral_reward", False), ("payment_method_bonus", False), ("promo_code", False),
     ("tier_bonus", False), ("admin_grant", True), ("fiat_purchase", True), ("refund", False)],
)  # fmt: skip
async def test_it_is_known_which_credit_somebody_has_paid_for(
    gateway: RunningGateway, upstream: RecordingUpstream, connection: Connection, source: str, is_paid_out: bool
) -> None:
    farm, puppet = await shop(gateway, upstream), await agent(gateway, claims=False)
    await pays(connection, puppet, 25 * CENT, source)
    await puppet.call(farm)
    await settled(farm, 25 * CENT * is_paid_out, 25 * CENT * (not is_paid_out))


async def test_a_call_that_several_credits_pay_counts_by_its_parts_and_so_does_its_refund(
    gateway: RunningGateway, upstream: RecordingUpstream, connection: Connection
) -> None:
    farm = await shop(gateway, upstream, "0.90", gateway_fee_percent="10", refund_on_status=["404"])
    puppet = await agent(gateway)
    await pays(connection, puppet, 2 * BONUS)
    wallet = await wallet_of(connection, puppet.id, USDC)
    await deposit(
        connection, wallet.id, publisher_id=farm.id, reference=secrets.token_hex(8), amount=20 * CENT,
        rail="eip155:84532",
    )  # fmt: skip
    await puppet.call(farm)  # 20 of the deposit, 70 of the bonus
    await settled(farm, 18 * CENT, 63 * CENT)
    await puppet.call(farm)  # 30 of the bonus, 60 of the money
    await settled(farm, 72 * CENT, 90 * CENT)
    await puppet.call(farm, "status/404", expect=404)
    await puppet.call(farm, "status/503", expect=503)
    await settled(farm, 72 * CENT, 90 * CENT)
    await connection.execute("SELECT analytics.roll_up(clock_timestamp())")
    await settled(farm, 72 * CENT, 90 * CENT)
    assert (await farm.asks(72 * CENT)).status_code == 201


async def test_an_operator_may_bound_what_each_owner_and_all_are_paid_of_it(
    gateway: RunningGateway, generous: RunningGateway, upstream: RecordingUpstream, connection: Connection
) -> None:
    client = generous.client
    first, second = await shop(gateway, upstream), await shop(gateway, upstream)
    for farm in (first, second):
        puppet = await agent(gateway)
        for _ in range(4):
            await puppet.call(farm)
        await settled(farm, 0, BONUS)
    assert await first.earned(client) == (60 * CENT, 0, BONUS)
    made = await first.asks(None, client)
    assert (made.status_code, made.json()["data"]["amount_atomic"]) == (201, 60 * CENT)
    assert await first.earned(client) == (0, 0, 40 * CENT)
    assert await second.earned(client) == (40 * CENT, 0, BONUS)
    both = await asyncio.gather(*(second.asks(30 * CENT, client) for _ in range(3)))
    assert sorted(answer.status_code for answer in both) == [201, 400, 400]
    cancelled = f"{first.path}/payouts/{made.json()['data']['id']}/cancel"
    answer = await client.post(cancelled, headers=first.owner.headers)
    assert answer.status_code < 300, answer.text
    assert await first.earned(client) == (60 * CENT, 0, BONUS)
    assert await second.earned(client) == (30 * CENT, 0, 70 * CENT)
    await connection.execute(
        "UPDATE chain.payout SET requested_at = now() - interval '31 days' WHERE publisher_id = $1::text::uuid",
        second.id,
    )
    assert await second.earned(client) == (60 * CENT, 0, 70 * CENT)
    assert await second.earned() == (0, 0, 70 * CENT)


@pytest.mark.parametrize("path", ["wait", "chunks?held=1"])
async def test_a_payout_never_includes_a_call_in_flight(
    gateway: RunningGateway, upstream: RecordingUpstream, connection: Connection, path: str
) -> None:
    farm, customer = await shop(gateway, upstream), await agent(gateway, claims=False)
    await pays(connection, customer, BONUS)
    await customer.call(farm)
    await settled(farm, 25 * CENT, 0)
    upstream.released.clear()
    calling = asyncio.create_task(customer.call(farm, path))
    async with asyncio.timeout(60):
        while (await farm.earned())[1] != 25 * CENT:  # charged, and with its publisher
            await asyncio.sleep(0.02)
    assert await farm.earned() == (25 * CENT, 25 * CENT, 0)
    refusal = (await farm.asks(50 * CENT)).json()
    assert (refusal["available"], refusal["held_back"]) == ("0.25", "0.25")
    assert (await farm.asks()).json()["data"]["amount_atomic"] == 25 * CENT
    assert (await farm.asks()).status_code == 400
    upstream.released.set()
    await calling
    await settled(farm, 25 * CENT, 0)
    assert (await farm.asks()).status_code == 201
