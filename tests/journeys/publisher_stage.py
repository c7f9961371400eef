"""A gateway with a seller and a buyer, for scenes that set fields of a publisher by one request or another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from tests.support.chat import ChatUpstream
from tests.support.gateway import RunningGateway
from tests.support.market import Market
from tests.support.mcp_server import PublishersServer
from tests.support.token_server import TokenServer
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
PRICE = "0.05"
_numbers = count(1)


@dataclass
class Servers:
    """The publishers' servers."""

    upstream: RecordingUpstream
    tokens: TokenServer
    mcp: PublishersServer
    chat: ChatUpstream
    market: Market


@dataclass
class Stage:
    """A gateway with a seller and a rich buyer. `door` is the request by which the fields of a scene are set, if it has
    them (`fields_of`); others are there from the beginning.
    """

    gateway: RunningGateway
    world: World
    servers: Servers
    seller: Agent
    buyer: Agent
    door: str
    fields_of: dict[str, frozenset[str]]
    word: str = field(default_factory=lambda: f"zq{next(_numbers)}xy")

    async def sells(self, **fields: Any) -> dict[str, Any]:
        """Make a publisher with these fields and return it as its owner sees it at last."""
        base: dict[str, Any] = {
            "name": "Shop", "slug": f"field-{next(_numbers)}", "publisher_category": "integration",
            "wallet_address": WALLET, "wallet_network_id": "eip155:84532", "price_per_call": PRICE,
            "api_url": f"{self.servers.upstream.url}/base",
        }  # fmt: skip
        later: dict[str, dict[str, Any]] = {"update": {}, "pricing": {}}
        for name, value in fields.items():
            doors = [self.door, "create", "update", "pricing"]
            door = next(one for one in doors if name in self.fields_of[one])
            (base if door == "create" else later[door])[name] = value
        if base.get("mcp_endpoint") or base["publisher_category"] == "database":
            del base["api_url"]
        made = (await self.owner("POST", "", base)).json()["data"]
        path = f"/{made['id']}"
        if later["update"]:
            await self.owner("PUT", path, later["update"])
        if later["pricing"]:
            change = {"asset_id": made["accepted_assets"][0]["id"], **later["pricing"]}
            await self.owner("PUT", f"{path}/pricing", change)
        return (await self.owner("GET", path)).json()["data"]

    async def owner(self, method: str, path: str, body: Any = None) -> httpx.Response:
        url = f"/organizations/{self.seller.organization_id}/publishers{path}"
        answer = await self.gateway.client.request(method, url, headers=self.seller.headers, json=body)
        assert answer.is_success, answer.text
        return answer

    async def call(
        self, shop: dict[str, Any], method: str = "GET", path: str = "/x", status: int = 200, **options: Any
    ) -> httpx.Response:
        """Call as the buyer, or as nobody with `headers`."""
        options.setdefault("headers", {})
        if options.pop("keyed", True):
            options["headers"] = {**self.buyer.headers, **options["headers"]}
        url = f"/publishers/{shop['slug']}{path}"
        answer = await self.gateway.client.request(method, url, **options)
        assert answer.status_code == status, answer.text
        return answer

    async def arrived(self, shop: dict[str, Any], method: str = "GET", **options: Any) -> Any:
        """Call, and return the request that the publisher's server has got."""
        await self.call(shop, method, **options)
        return self.servers.upstream.requests[-1]

    async def cost(self, shop: dict[str, Any], method: str = "GET", path: str = "/x", **options: Any) -> str:
        return (await self.call(shop, method, path, **options)).headers["x-cost"]

    async def store(self, shop: dict[str, Any], path: str = "", status: int = 200) -> Any:
        answer = await self.gateway.client.get(f"/publishers/{shop['slug']}{path}")
        assert answer.status_code == status, answer.text
        return answer.json()

    async def page(self, shop: dict[str, Any]) -> str:
        return (await self.gateway.client.get(f"/store/{shop['slug']}")).text

    async def offers(self, shop: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what a caller without a key may pay by."""
        return (await self.call(shop, status=402, keyed=False)).json()["accepts"]


Scene = Callable[[Stage], Awaitable[None]]
SCENES: dict[str, Scene] = {}


def shows(*names: str) -> Callable[[Scene], Scene]:
    """Register a scene for the fields whose effect it shows."""

    def register(scene: Scene) -> Scene:
        for name in names:
            assert name not in SCENES, name
            SCENES[name] = scene
        return scene

    return register
