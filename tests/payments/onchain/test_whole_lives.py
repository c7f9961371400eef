"""Whole lives of money, in an order that a seed picks: in by card, on the chain and as bonuses, spent by calls, charges,
invoices and what the gateway buys, given back by hand and by rule, slashed, disputed and paid out or not; and the books,
the sums, the statements, Stripe's balance and the token's own accounts agree at the end.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection, Database
from gateway.jobs.bookkeeping import Bookkeeping
from gateway.ledger import proof
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import Signer
from gateway.settings import DatabaseSettings
from gateway.telemetry.metrics import Metrics
from tests.payments.buying.conftest import booked, buys, ended, give
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.stripe.stage import Stage
from tests.payments.stripe.test_invoice_money import SELLER, Bill, billed
from tests.support.books import made_of_nothing
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.seller import Seller, open_seller
from tests.support.services import Services
from tests.support.stripe_server import KEY, SIGNING, Object, StripeServer
from tests.support.world import SEPOLIA_USDC, USDC, Agent, Shop, World

STEPS = 80
CENT = 10_000  # atomic units
TREASURY = 10**9
# What each step may answer. A refusal is fine: it moves nothing, and says why.
REFUSED = {400, 402, 403, 404, 409}
# How a server that sells to the gateway may behave once it has its payment: whatever it does, the payment was taken.
SELLS = ("honest", "honest", "failing", "absent", "denying", "thief")


@pytest.fixture(scope="module")
def key() -> str:
    """The buying wallet's private key."""
    return "0x" + secrets.token_bytes(32).hex()


@pytest_asyncio.fixture(scope="module")
async def seller(chain: Chain) -> AsyncIterator[Seller]:
    """A server that sells to the gateway by x402."""
    seller, serving = await open_seller(chain, secrets.token_bytes(20))
    async with serving:
        yield seller


@pytest_asyncio.fixture(scope="module")
async def gateway(
    services: Services, database_url: str, chain: Chain, stripe: StripeServer, key: str
) -> AsyncIterator[RunningGateway]:
    """A gateway that takes cards and payments on the chain, buys, writes invoices, and holds nothing back."""
    await chain.at_once()
    await chain.give(chain.treasury, TREASURY)  # what was paid by card is paid out in tokens
    rules = {"STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRETS": SIGNING, "STRIPE_API_BASE": stripe.url}
    held = {"PAYOUTS_HOLDBACK": "0", "PAYOUTS_MINIMUM": "1", "PAYOUTS_COOLDOWN": "0"}
    sells = {"INVOICES_SELLER_NAME": SELLER.seller_name, "INVOICES_SELLER_ADDRESS": SELLER.seller_address}
    running = await start_gateway(
        services, database_url, **chained(chain, **{**buys(chain, key), **rules, **held, **sells})
    )
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
    ruled: Shop
    resold: Shop
    seller: Seller
    bills: list[Bill]
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
        answer = await self.post(
            "/wallet/deposit", {"amount_cents": self.dice.choice((500, 1_234, 2_500, 10_000))}, agent
        )
        self.note("deposit", answer)
        if self.dice.random() < 0.9:
            self.intents.append(self.stage.stripe.pay(self.stage.session_of(answer.json()["data"]))["id"])

    async def buy(self) -> None:
        self.note("buy", await self.dice.choice(self.buyers).buy(f"/publishers/{self.shop.slug}/x"))

    async def claim(self) -> None:
        """Take a bonus, or name a referrer; most of it is refused the second time."""
        agent, other = self.dice.sample(self.agents, 2)
        what = self.dice.choice(("/wallet/bonus/signup", "/wallet/daily/claim", "/wallet/referral/apply"))
        body = {"referral_code": (await self.stage.get(other, "/wallet/referral"))["referral_code"]}
        self.note(what, await self.post(what, body if "referral" in what else {}, agent))

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

    async def resell(self) -> None:
        """Call what the gateway buys elsewhere; what its seller answers is nothing that we promise."""
        self.seller.mode = self.dice.choice(SELLS)
        agent = self.dice.choice(self.agents)
        answer = await self.stage.gateway.client.get(f"/publishers/{self.resold.slug}/item", headers=agent.headers)
        self.done.append(f"resell {answer.status_code}")

    async def bill(self) -> None:
        """Do something with an invoice's money: pay it, give it back, dispute that, or hear of it."""
        await self.dice.choice(self.bills).step(self.dice)
        self.done.append("bill")

    # It is given back, or taken.

    async def rule(self) -> None:
        """Call where a rule of the publisher gives the answer back."""
        path = f"/publishers/{self.ruled.slug}/x"
        if self.dice.random() < 0.3:
            answer = await self.dice.choice(self.buyers).buy(path)
        else:
            answer = await self.stage.gateway.client.get(path, headers=self.dice.choice(self.agents).headers)
        assert answer.headers["x-cost"] == "0", answer.text
        self.note("rule", answer)

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
        answer = await self.post(path, body)
        self.note("payout", answer)
        if answer.status_code == 201 and self.dice.random() < 0.3:
            self.note("cancel", await self.post(f"{path}/{answer.json()['data']['id']}/cancel", {}))

    async def mine(self) -> None:
        await self.chain.mine(self.dice.randint(1, 3))

    async def lead(self) -> None:
        """Live STEPS steps; no step makes money."""
        steps: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.deposit, 4), (self.buy, 2), (self.hear, 4), (self.call, 4), (self.charge, 4), (self.refund, 2),
            (self.slash, 2), (self.give_back, 2), (self.dispute, 1), (self.close, 1), (self.pay_out, 3), (self.mine, 2),
            (self.claim, 3), (self.resell, 3), (self.bill, 4), (self.rule, 2),
        ]  # fmt: skip
        for step in self.dice.choices([one for one, _ in steps], [weight for _, weight in steps], k=STEPS):
            await self.live(step)

    async def live(self, step: Callable[[], Awaitable[None]]) -> None:
        await step()
        assert await made_of_nothing(self.stage.connection) == [], self.done[-5:]

    async def complete(self) -> None:
        """Let happen what was always refused, which is of those who had no money: a life without it proves less."""
        wanted = {
            "deposit 200": self.deposit, "call 200": self.call, "buy 200": self.buy, "charge 200": self.charge,
            "refund 200": self.refund, "slash 204": self.slash, "rule 200": self.rule, "resell 200": self.resell,
            "bill": self.bill, "/wallet/bonus/signup 200": self.claim, "/wallet/referral/apply 200": self.claim,
            "payout 201": self.pay_out, "cancel 200": self.pay_out,
        }  # fmt: skip
        for what, step in wanted.items():
            for _ in range(40):
                if what in self.done:
                    break
                for one in (self.deposit, self.hear, self.call, self.charge, step):
                    await self.live(one)
            assert what in self.done, (what, [one for one in self.done if one.startswith(what.split()[0])])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_cent_can_be_followed_from_either_end(
    seed: int, gateway: RunningGateway, stripe: StripeServer, world: World, chain: Chain, connection: Connection,
    buying: Buying, seller: Seller, key: str, database_url: str,
) -> None:  # fmt: skip
    wallet, purse = await chain.wallet(), Signer(bytes.fromhex(key[2:]))
    await give(chain, purse, connection, 100 * PRICE)
    stage = Stage(gateway, stripe, connection, world, Shop(UUID(int=0), "", 0))
    life = await born(random.Random(seed), stage, chain, wallet, seller)
    life.buyers = [await buying(100 * PRICE) for _ in range(2)]
    await life.lead()
    await life.complete()
    for one in stripe.made("dispute"):
        if one["status"] == "needs_response":
            stripe.close(one["id"], life.dice.choice(("won", "lost")))
    while stripe.events:
        await life.hear()

    async def all_paid() -> bool:
        await chain.mine()
        return not await connection.fetchval(
            "SELECT count(*) FROM chain.payout WHERE state IN ('queued', 'processing')"
        )

    await until(all_paid)
    await ended(connection, chain)
    await settled(connection)
    await rails_agree(life, wallet, purse)
    await books_agree(life, database_url)
    await statements_agree(life)


async def rails_agree(life: Life, wallet: Signer, purse: Signer) -> None:
    """Hold the books against what is outside of them; the treasury is asked by `agreement`."""
    stage, chain, connection = life.stage, life.chain, life.stage.connection
    paid = await connection.fetchval(
        "SELECT coalesce(sum(amount), 0) FROM chain.payout WHERE publisher_id = $1 AND state = 'completed'",
        life.shop.id,
    )
    assert await chain.usdc_of(wallet.address) == paid > 0
    assert await chain.usdc_of(purse.address) == await booked(connection, chain)
    assert await stage.clearing() == stage.at_stripe * CENT
    for bill in life.bills:
        await bill.adds_up()


async def books_agree(life: Life, database_url: str) -> None:
    """Prove the books and the sums, and let health say so."""
    connection = life.stage.connection
    report = await proof.verify(connection)
    assert report.sound, report.violations
    # What the publisher is told of its revenue is what the ledger has of it.
    await connection.execute("SELECT analytics.roll_up(analytics.horizon(interval '0'))")
    assert await connection.fetch("SELECT detail FROM analytics.differences()") == []
    await connection.execute("UPDATE analytics.proof SET taken_until = now()")
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    try:
        books = Bookkeeping(database, Metrics(), 3600)
        await books.prove_quickly()
        await books.prove_fully()
    finally:
        await database.stop()
    health = await life.stage.get(life.owner, "/billing/health")
    assert (health["books_balance"], health["unknown_exchanges"]) == (True, 0)


async def statements_agree(life: Life) -> None:
    """Hold what everybody can download against the accounts, and a publisher's against its revenue."""
    connection, client = life.stage.connection, life.stage.gateway.client
    of_shop = f"/organizations/{life.owner.organization_id}/publishers/{life.shop.id}"
    of_agent = (
        "SELECT sum(a.balance) FROM ledger.account a JOIN ledger.wallet w ON w.id = a.wallet_id WHERE w.owner_id = $1"
    )
    asked = [("/wallet/statement", one, await connection.fetchval(of_agent, one.id)) for one in life.agents]
    of_publisher = await connection.fetchval(
        "SELECT sum(s.credits - s.debits) FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id"
        " WHERE a.publisher_id = $1",
        life.shop.id,
    )
    for path, who, wanted in [*asked, (f"{of_shop}/statement", life.owner, of_publisher)]:
        answer = await client.get(path, headers=who.headers)
        opening, *lines, closing = [json.loads(line) for line in answer.text.splitlines()]
        balance = opening["balance_atomic"]
        for line in lines:
            balance += line["amount_atomic"]
            assert line["balance_atomic"] == balance, line
        assert (opening["kind"], closing["kind"]) == ("opening", "closing")
        assert closing["balance_atomic"] == balance == wanted
    penalties = await connection.fetchval(
        "SELECT coalesce(sum(p.credit - p.debit), 0) FROM ledger.posting p JOIN ledger.account a ON a.id = p.account_id"
        " WHERE a.publisher_id = $1 AND a.purpose = 'penalties' AND p.kind IN ('penalty', 'refund')",
        life.shop.id,
    )
    revenue, days, top = [
        (await client.get(f"{of_shop}/analytics/{what}", headers=life.owner.headers)).json()
        for what in ("revenue?days=2", "revenue-by-day?days=2", "top-agents?limit=100")
    ]
    (earned,) = await life.stage.get(life.owner, f"{of_shop}/earnings")
    assert revenue["total_revenue_atomic"] == earned["total_revenue_atomic"] - penalties > 0
    assert sum(day["revenue_atomic"] for day in days) == revenue["total_revenue_atomic"]
    assert sum(agent["total_spent_atomic"] for agent in top) == revenue["gross_atomic"]


async def born(dice: random.Random, stage: Stage, chain: Chain, wallet: Signer, seller: Seller) -> Life:
    """Make a shop that the operator trusts with direct charges, its owner, agents without money, and others to deal with."""
    world, connection = stage.world, stage.connection
    owner, agents = await world.agent(), [await stage.registered() for _ in range(3)]
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10")
    ruled = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", refund_rules={"error_at": "ok"})
    resold = await world.publisher(
        None, SEPOLIA_USDC, api_url=seller.url, billing_model="x402_passthrough", pricing_model="passthrough",
        reserve_max_charge="0.03", wallet_address=show_address(seller.payee), wallet_network_id=chain.network,
    )  # fmt: skip
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
    addresses = {row["owner_id"]: row["address"] for row in rows}
    bills = await billed(stage, 2)
    return Life(dice, stage, chain, shop, owner, agents, [], addresses, ruled, resold, seller, bills)
