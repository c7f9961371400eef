"""The agent and the publishers that most hostile tests use, made once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.hostile.wire import request
from tests.support.world import Agent, Shop, World, by_nobody

PRICE, PREMIUM, BASE = 10_000, 500_000, 10
FUNDS = 10**12


@dataclass
class Market:
    """`plain` sells every call for PRICE and passes every field on; `dear` has dear and closed endpoints over BASE;
    `scripted` is a `plain` whose server says what it was told; `keyed` has a credential, a base path and a query key.
    """

    agent: Agent
    plain: Shop
    dear: Shop
    scripted: Shop
    keyed: Shop
    free: Shop

    def ask(self, method: str, below: str = "/x", *fields: str, shop: Shop | None = None, body: bytes = b"") -> bytes:
        """Return a paid request for what stands below a shop's slug."""
        target = f"/publishers/{(shop or self.plain).slug}{below}"
        return request(method, target, *fields, key=self.agent.key, body=body)


async def open_market(world: World, scripted_url: str) -> Market:
    """Make them and wait until the gateways have heard of them."""
    agent = await world.agent(FUNDS)
    heard, world.heard = world.heard, by_nobody
    every = {"allowed_passthrough_headers": ["*"]}
    token = {"upstream_headers": {"X-Upstream-Token": "the-publishers-own"}}
    plain = await world.publisher(PRICE, **every, **token)
    dear = await world.publisher(
        BASE,
        **every,
        **token,
        endpoints=[
            {"method": "GET", "path": "/v1/premium", "price": "0.5"},
            {"method": "GET", "path": "/v1/items/{id}", "price": "0.5"},
            {"method": "DELETE", "path": "/v1/items/{id}", "price": "2"},
            {"method": "GET", "path": "/admin", "is_protected": True, "protection_reason": "Owner only."},
        ],
    )
    scripted = await world.publisher(PRICE, api_url=scripted_url, **every)
    keyed = await world.publisher(PRICE, api_url=f"{world.upstream_url}/base/v2", **every, **token)
    world.heard = heard
    free = await world.publisher(None, **every)
    return Market(agent, plain, dear, scripted, keyed, free)


class Tills:
    """Counts what agents have paid, when it comes to rest: a charge may follow its refusal and come back later."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._expected: dict[str, tuple[Agent, int]] = {}

    async def agent(self, name: str) -> Agent:
        """Return a new agent with funds, for the test that `name` tells apart."""
        agent = await self._world.agent(FUNDS)
        self._expected[f"{name} ({agent.id})"] = (agent, -1)
        return agent

    async def expect(self, agent: Agent, paid: int) -> None:
        """Wait until the agent has paid so much. Looked at once more after the last test of the module."""
        for name, (known, _) in self._expected.items():
            if known is agent:
                self._expected[name] = (agent, paid)
        assert await self._paid(agent, paid) == paid

    async def close(self) -> None:
        """Look at all agents again."""
        wrong = {
            name: (found, paid)
            for name, (agent, paid) in self._expected.items()
            if paid >= 0 and (found := await self._paid(agent, paid)) != paid
        }
        assert not wrong, f"paid, and should have: {wrong}"

    async def _paid(self, agent: Agent, expected: int) -> int:
        paid = -1
        for _ in range(3000):
            paid = FUNDS - await self._world.balance(agent)
            if paid == expected:
                break
            await asyncio.sleep(0.02)
        return paid
