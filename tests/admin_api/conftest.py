"""The admin API over ASGI on a real database, with the worker's real parts and without a server process.

`api` is an HTTP client; `clerk` makes agents, organizations' members and publishers through the public operations.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from admin_api.app import build
from gateway import services as parts
from gateway.app import build_services
from gateway.settings import (
    DatabaseSettings,
    LimitSettings,
    LoggingSettings,
    MoneySettings,
    ProxySettings,
    RedisSettings,
    SecretSettings,
    ServerSettings,
    Settings,
)

PUBLIC_URL = "http://tollway.test"
WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
SECRET = "do-not-show-7d1f"
_numbers = count(1)


def settings_for(database_url: str, **sections: Any) -> Settings:
    """Return settings with limits out of the way; Valkey is a dead port, so limits are counted in the process."""
    given = {
        "server": ServerSettings(public_url=PUBLIC_URL),
        "database": DatabaseSettings(url=database_url),
        "redis": RedisSettings(url="redis://127.0.0.1:9/0"),
        "limits": LimitSettings(per_key=100_000, per_address=100_000, registrations=10_000, guesses=10_000),
        "proxy": ProxySettings(allow_addresses=("127.0.0.0/8",)),
        "money": MoneySettings(),
        "secrets": SecretSettings(keys="k1:" + base64.b64encode(bytes(32)).decode()),
        "logging": LoggingSettings(),
    }
    return Settings(**{**given, **sections})


@dataclass
class Api:
    """A client of one admin application, with the parts behind it."""

    http: httpx.AsyncClient
    services: parts.Services

    async def call(
        self, method: str, path: str, key: str | None = None, *, expect: int | None = None, **options: Any
    ) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        answer = await self.http.request(method, path, headers=headers, **options)
        if expect is not None:
            assert answer.status_code == expect, answer.text
        return answer


@dataclass
class Member:
    """A registered agent."""

    id: UUID
    organization_id: UUID
    name: str
    key: str


class Clerk:
    """Makes things through the API."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def agent(self, **body: Any) -> Member:
        answer = (await self.api.call("POST", "/auth/agent", json=body, expect=201)).json()["data"]["agent"]
        return Member(UUID(answer["id"]), UUID(answer["organization_id"]), answer["name"], answer["api_key"])

    async def join(self, member: Member, organization_id: UUID, role: str) -> None:
        """Put an agent into an organization (invitations come with a later issue)."""
        async with self.api.services.database.acquire() as connection:
            await connection.execute(
                "INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, $3)"
                " ON CONFLICT (organization_id, account_id) DO UPDATE SET role = $3",
                organization_id, member.id, role,
            )  # fmt: skip

    def order(self, **changes: Any) -> dict[str, Any]:
        """Return the body of a valid create_publisher."""
        number = next(_numbers)
        body = {
            "name": f"Shop {number}",
            "slug": f"shop-{number}",
            "publisher_category": "integration",
            "integration_type": "api",
            "api_url": "https://api.example.com/v1",
            "wallet_address": WALLET,
            "wallet_network_id": "eip155:84532",
            "price_per_call": "0.05",
            **changes,
        }
        return {name: value for name, value in body.items() if value is not ...}

    async def publisher(self, owner: Member, **changes: Any) -> dict[str, Any]:
        path = f"/organizations/{owner.organization_id}/publishers"
        answer = await self.api.call("POST", path, owner.key, json=self.order(**changes), expect=201)
        return answer.json()["data"]


async def open_api(settings: Settings) -> tuple[Api, parts.Services]:
    """Start the parts that the admin API needs and return a client."""
    services = build_services(settings)
    await services.database.start()
    await services.catalog.load()
    transport = httpx.ASGITransport(build(services), client=("203.0.113.7", 4711))
    return Api(httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL), services), services


async def close_api(api: Api) -> None:
    """Close everything that `open_api` opened."""
    await api.http.aclose()
    await api.services.upstreams.aclose()
    await api.services.limiter.stop()
    await api.services.database.stop()


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str) -> AsyncIterator[Api]:
    opened, _ = await open_api(settings_for(database_url))
    yield opened
    await close_api(opened)


@pytest.fixture(scope="module")
def clerk(api: Api) -> Clerk:
    return Clerk(api)
