"""What tests of card deposits stand on: agents, a shop, Stripe's stand-in, and a gateway that takes cards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection
from tests.support import forking
from tests.support.gateway import RunningGateway
from tests.support.stripe_server import Object, StripeServer
from tests.support.world import USDC, Agent, Shop, World

PRICE = 500_000
assert asset_id("eip155:8453", "USDC") == USDC


@dataclass
class Stage:
    """The parts, and what people do with them. `not_ours` are payments at the account that are no deposits."""

    gateway: RunningGateway
    stripe: StripeServer
    connection: Connection
    world: World
    shop: Shop
    not_ours: set[str] = field(default_factory=set)

    async def agent(self) -> Agent:
        return await self.world.agent()

    async def registered(self) -> Agent:
        """Make an agent by the API, which has a code to refer others with."""
        made = (await self.gateway.client.post("/auth/agent", json={})).json()["data"]["agent"]
        return Agent(UUID(made["id"]), UUID(made["organization_id"]), made["api_key"], 0)

    async def tollway(self, *arguments: str, expect: int = 0) -> str:
        """Run the command line on this gateway and return what it prints."""
        done = await asyncio.to_thread(forking.run, *arguments, env=self.gateway.environment, merged=True)
        assert done.returncode == expect, done.stdout
        return done.stdout

    async def post(self, agent: Agent, path: str, body: Any) -> httpx.Response:
        return await self.gateway.client.post(path, json=body, headers=agent.headers)

    async def get(self, agent: Agent, path: str) -> Any:
        answer = await self.gateway.client.get(path, headers=agent.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def balance(self, agent: Agent) -> Any:
        return await self.get(agent, "/wallet/balance")

    async def deposit(self, agent: Agent, cents: int) -> Any:
        answer = await self.post(agent, "/wallet/deposit", {"amount_cents": cents})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def session_of(self, deposit: Any) -> str:
        """Return the page that was opened for a deposit."""
        found = [
            one
            for one in self.stripe.made("checkout.session")
            if one["client_reference_id"] == deposit["deposit_id"] and not one.get("_forged")
        ]
        assert len(found) == 1
        return found[0]["id"]

    async def pays(self, deposit: Any) -> str:
        """Pay a deposit, let the gateway hear of it, and return the payment."""
        intent = self.stripe.pay(self.session_of(deposit))["id"]
        await self.hears()
        return intent

    def take_events(self, kind: str | None = None) -> list[Object]:
        """Take the events that were not delivered, of one kind or all."""
        events, self.stripe.events[:] = list(self.stripe.events), []
        return [one for one in events if kind in (None, one["type"])]

    async def hears(self, times: int = 1) -> None:
        """Deliver what has happened, in its order."""
        for event in self.take_events():
            for _ in range(times):
                answer = await self.stripe.deliver(event, self.gateway.url)
                assert answer.status_code == 200, (event["type"], answer.text)

    async def state(self, deposit: Any) -> str:
        return await self.connection.fetchval(
            "SELECT state FROM card.deposit WHERE id = $1", UUID(deposit["deposit_id"])
        )

    async def reconciled(self, deposit: Any, state: str) -> None:
        """Let the reconciler come round at once, and wait until it has made this of a deposit."""
        async with asyncio.timeout(60):
            while await self.state(deposit) != state:
                await self.connection.execute(
                    "UPDATE card.deposit SET checked_at = now() - interval '1 day' WHERE id = $1 AND checked_at > now() - interval '1 hour'",
                    UUID(deposit["deposit_id"]),
                )
                await asyncio.sleep(0.1)

    async def call(self, agent: Agent) -> httpx.Response:
        return await self.gateway.client.get(f"/publishers/{self.shop.slug}/x", headers=agent.headers)

    async def spend(self, agent: Agent, amount: int) -> None:
        for _ in range(amount // PRICE):
            assert (await self.call(agent)).status_code == 200

    async def platform(self, purpose: str, rail: str | None = None) -> int:
        """Return the sum of a platform's account: credits less debits."""
        found = await self.connection.fetchval(
            "SELECT coalesce(sum(s.credits - s.debits), 0) FROM ledger.account a JOIN ledger.shard s ON s.account_id = a.id"
            " WHERE a.purpose = $1::text::ledger.purpose AND a.rail IS NOT DISTINCT FROM $2 AND a.asset_id = $3",
            purpose, rail, USDC,
        )  # fmt: skip
        return int(found)

    async def clearing(self) -> int:
        """Return what the books say that Stripe has of ours."""
        return -await self.platform("clearing", "stripe")

    @property
    def at_stripe(self) -> int:
        """Return what Stripe has of deposits, in cents, with what it holds while banks decide."""
        others = [one for one in self.stripe.movements if self._intent_of(one) in self.not_ours]
        return self.stripe.balance + self.stripe.held - sum(one["net"] for one in others)

    def _intent_of(self, movement: Object) -> str:
        return self.stripe.store[movement["source"]]["payment_intent"]
