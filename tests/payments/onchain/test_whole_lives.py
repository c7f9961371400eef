"""Whole lives of money, in an order that a seed picks: in by card and on the chain, spent by calls and charges, given
back, slashed, disputed and paid out; and the books, Stripe's balance and the token's own account agree at the end.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import Signer
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.stripe.stage import Stage
from tests.support.books import made_of_nothing
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.stripe_server import KEY, SIGNING, Object, StripeServer
from tests.support.world import SEPOLIA_USDC, USDC, Agent, Shop, World

STEPS = 60
CENT = 10_000  # atomic units
TREASURY = 10**9
# What each step may answer. A refusal is fine: it moves nothing, and says why.
REFUSED = {400, 402, 403, 404, 409}


@pytest_asyncio.fixture(scope="module")
async def gateway(
    services: Services, database_url: str, chain: Chain, stripe: StripeServer
) -> AsyncIterator[RunningGateway]:
    """A gateway that takes cards and payments on the chain, and holds nothing back."""
    await chain.at_once()
    await chain.give(chain.treasury, TREASURY)  # what was paid by card is paid out in tokens
    rules = {"STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRETS": SIGNING, "STRIPE_API_BASE": stripe.url}
    held = {"PAYOUTS_HOLDBACK": "0", "PAYOUTS_MINIMUM": "1", "PAYOUTS_COOLDOWN": "0"}
    running = await start_gateway(services, database_url, **chained(chain, **rules, **held))
    yield running
    await running.stop()


@dataclass
class Life:
    """One life: who takes part, and what has happened so far."""

    dice: random.Random
    stage: Stage
    chain: Chain
    shop: Shop
    owner: Agent
    agents: list[Agent]
    buyers: list[Buyer]
    addresses: dict[UUID, str]
    intents: list[str] = field(default_factory=list[str])
    disputes: list[str] = field(default_factory=list[str])
    charges: list[str] = field(default_factory=list[str])
    done: list[str] = field(default_factory=list[str])

    def post(self, path: str, body: Any, who: Agent | None = None) -> Awaitable[httpx.Response]:
        return self.stage.post(who or self.owner, path, body)

    def note(self, what: str, answer: httpx.Response) -> None:
        assert answer.status_code < 300 or answer.status_code in REFUSED, (what, answer.status_code, answer.text)
        self.done.append(f"{what} {answer.status_code}")

    # Money comes in.

    async def deposit(self) -> None:
        agent = self.dice.choice(self.agents)
        answer = await self.post("/wallet/deposit", {"amount_cents": self.dice.choice((500, 1_234, 2_500))}, agent)
        self.note("deposit", answer)
        if self.dice.random() < 0.9:
            self.intents.append(self.stage.stripe.pay(self.stage.session_of(answer.json()["data"]))["id"])

    async def buy(self) -> None:
        self.note("buy", await self.dice.choice(self.buyers).buy(f"/publishers/{self.shop.slug}/x"))

    async def hear(self) -> None:
        """Deliver what Stripe has told by now, in any order, some of it twice."""
        events = self.stage.take_events()
        events += [one for one in events if self.dice.random() < 0.3]
        self.dice.shuffle(events)
        for event in events:
            await self.deliver(event)

    async def deliver(self, event: Object) -> None:
        answer = await self.stage.stripe.deliver(event, self.stage.gateway.url)
        self.note(event["type"], answer)

    # It is spent.

    async def call(self) -> None:
        for _ in range(self.dice.randint(1, 30)):
            self.note("call", await self.stage.call(self.dice.choice(self.agents)))

    async def charge(self) -> None:
        agent = self.dice.choice(self.agents)
        body = {
            "agent_wallet": self.addresses[agent.id], "amount_atomic": self.dice.randint(1, 3_000_000),
            "description": "compute",
        }  # fmt: skip
        answer = await self.post(f"/billing/publishers/{self.shop.slug}/charges", body)
        self.note("charge", answer)
        if answer.status_code == 200:
            self.charges.append(answer.json()["id"])

    # It is given back, or taken.

    async def refund(self) -> None:
        if self.charges:
            path = f"/billing/publishers/{self.shop.slug}/charges/{self.dice.choice(self.charges)}/refund"
            self.note("refund", await self.post(path, {"reason": "did not run"}))

    async def slash(self) -> None:
        if self.charges:
            path = f"/billing/publishers/{self.shop.slug}/charges/{self.dice.choice(self.charges)}/slash"
            body = {"reason": "abuse", "slash_amount_atomic": self.dice.randint(1, 1_000_000)}
            self.note("slash", await self.post(path, body))

    async def give_back(self) -> None:
        intent = self.left_of()
        if intent is not None:
            self.stage.stripe.refund(intent, self.dice.randint(1, self.left(intent)))
            self.done.append("card refund")

    async def dispute(self) -> None:
        intent = self.left_of()
        if intent is not None:
            self.disputes.append(self.stage.stripe.dispute(intent)["id"])
            self.done.append("dispute")

    async def close(self) -> None:
        if self.disputes:
            one = self.disputes.pop(self.dice.randrange(len(self.disputes)))
            self.stage.stripe.close(one, self.dice.choice(("won", "lost")))
            self.done.append("dispute closed")

    def left(self, intent: str) -> int:
        """Return how many cents of a payment were neither given back nor disputed."""
        (charge,) = [one for one in self.stage.stripe.made("charge") if one["payment_intent"] == intent]
        return 0 if charge["disputed"] else charge["amount_captured"] - charge["amount_refunded"]

    def left_of(self) -> str | None:
        some = [one for one in self.intents if self.left(one) > 0]
        return self.dice.choice(some) if some else None

    # It goes out.

    async def pay_out(self) -> None:
        path = f"/organizations/{self.owner.organization_id}/publishers/{self.shop.id}/payouts"
        body: dict[str, Any] = {"asset_id": str(SEPOLIA_USDC)}
        if self.dice.random() < 0.7:
            body["amount_atomic"] = self.dice.randint(1, 5_000_000)
        self.note("payout", await self.post(path, body))

    async def mine(self) -> None:
        await self.chain.mine(self.dice.randint(1, 3))

    async def lead(self) -> None:
        """Live STEPS steps; no step makes money."""
        steps: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.deposit, 4), (self.buy, 2), (self.hear, 4), (self.call, 4), (self.charge, 4), (self.refund, 2),
            (self.slash, 2), (self.give_back, 2), (self.dispute, 1), (self.close, 1), (self.pay_out, 3), (self.mine, 2),
        ]  # fmt: skip
        for step in self.dice.choices([one for one, _ in steps], [weight for _, weight in steps], k=STEPS):
            await step()
            assert await made_of_nothing(self.stage.connection) == [], self.done[-5:]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_cent_can_be_followed_from_either_end(
    seed: int, gateway: RunningGateway, stripe: StripeServer, world: World, chain: Chain, connection: Connection,
    buying: Buying,
) -> None:  # fmt: skip
    wallet = await chain.wallet()
    life = await born(
        random.Random(seed), Stage(gateway, stripe, connection, world, Shop(UUID(int=0), "", 0)), chain, wallet
    )
    life.buyers = [await buying(100 * PRICE) for _ in range(2)]
    await life.lead()
    while life.disputes:
        await life.close()
    while stripe.events:
        await life.hear()

    async def all_paid() -> bool:
        await chain.mine()
        return not await connection.fetchval(
            "SELECT count(*) FROM chain.payout WHERE state IN ('queued', 'processing')"
        )

    await until(all_paid)
    happened = {one.rsplit(" ", 1)[0] for one in life.done if not one.endswith(tuple(map(str, REFUSED)))}
    assert {"deposit", "call", "charge", "buy", "payout"} <= happened, life.done
    # The publisher's wallet has what was paid out, and Stripe what the books say; the treasury is asked by `agreement`.
    paid = await connection.fetchval(
        "SELECT coalesce(sum(amount), 0) FROM chain.payout WHERE publisher_id = $1 AND state = 'completed'",
        life.shop.id,
    )
    assert await chain.usdc_of(wallet.address) == paid > 0
    assert await life.stage.clearing() == life.stage.at_stripe * CENT
    report = await proof.verify(connection)
    assert report.sound, report.violations
    # What the publisher is told of its revenue is what the ledger has of it.
    await connection.execute("SELECT analytics.roll_up(analytics.horizon(interval '0'))")
    assert await connection.fetch("SELECT detail FROM analytics.differences()") == []


async def born(dice: random.Random, stage: Stage, chain: Chain, wallet: Signer) -> Life:
    """Make a shop that the operator trusts with direct charges, its owner, and agents without money."""
    world, connection = stage.world, stage.connection
    owner, agents = await world.agent(), [await world.agent() for _ in range(3)]
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10")
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2, wallet_address = $3, wallet_network_id = $4 WHERE id = $1",
        shop.id, owner.organization_id, show_address(wallet.address), chain.network,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO catalog.first_party (publisher_id, asset_id, per_charge, per_day) VALUES ($1, $2, $3, $4)",
        shop.id, USDC, 2_500_000, 100_000_000,
    )  # fmt: skip
    await world.told()
    rows = await connection.fetch("SELECT owner_id, address FROM ledger.wallet")
    stage.shop = shop
    return Life(dice, stage, chain, shop, owner, agents, [], {row["owner_id"]: row["address"] for row in rows})
