"""Makes accounts, agents and publishers straight in the database, for tests that are about something else.

Journeys use the public API instead (tests/journeys).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection
from gateway.identity.principals import new_key
from gateway.ids import uuid7
from gateway.ledger import wallets

USDC = asset_id("eip155:8453", "USDC")
SEPOLIA_USDC = asset_id("eip155:84532", "USDC")
ETHER = asset_id("eip155:84532", "ETH")


@dataclass
class Agent:
    """An agent with its key and wallet number."""

    id: UUID
    organization_id: UUID
    key: str
    wallet_id: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass
class Shop:
    """A publisher."""

    id: UUID
    slug: str
    account_id: int


Heard = Callable[[str], Awaitable[None]]


async def by_nobody(slug: str) -> None:
    """Wait for nobody: no gateway runs, or the test does not call it."""


class World:
    """Fills one database."""

    def __init__(
        self, connection: Connection, upstream_url: str = "http://127.0.0.1:1", heard: Heard = by_nobody
    ) -> None:
        """`heard` waits until those who should know of a new publisher do."""
        self.connection = connection
        self.heard = heard
        self.upstream_url = upstream_url
        self._number = 0

    async def agent(self, funds: int = 0, asset: UUID = USDC) -> Agent:
        """Make an agent with a personal organization, a key and a wallet that holds `funds` atomic units."""
        self._number += 1
        account, organization, key = uuid7(), uuid7(), new_key()
        name = f"agent-{account.hex[-12:]}"
        run = self.connection.execute
        await run(
            "INSERT INTO identity.account (id, kind, name, referral_code) VALUES ($1, 'agent', $2, $2)", account, name
        )
        await run(
            "INSERT INTO identity.organization (id, name, slug, created_by, is_personal) VALUES ($1, $2, $2, $3, true)",
            organization, name, account,
        )  # fmt: skip
        await run("INSERT INTO identity.membership VALUES ($1, $2, 'owner')", organization, account)
        await run(
            "INSERT INTO identity.api_key (id, key_id, secret_hash, name, organization_id, account_id)"
            " VALUES ($1, $2, $3, 'agent', $4, $5)",
            uuid7(), key.key_id, key.secret_hash, organization, account,
        )  # fmt: skip
        wallet = await wallets.open_wallet(self.connection, account, asset, f"agent:{account}/{asset}")
        if funds:
            await wallets.grant(self.connection, wallet.id, source="admin_grant", reference="test", amount=funds)
        return Agent(account, organization, key.text, wallet.id)

    async def publisher(self, price: int | None = 10_000, asset: UUID = USDC, **document: Any) -> Shop:
        """Make an active HTTP publisher; keyword arguments go into its document or, if they are prices, its pricing."""
        async with self.connection.transaction():
            shop = await self._publisher(price, asset, document)
        await self.heard(shop.slug)
        return shop

    async def told(self) -> None:
        """Wait until the gateways know every change before: they are told in this order."""
        await self.publisher()

    async def _publisher(self, price: int | None, asset: UUID, document: dict[str, Any]) -> Shop:
        owner = await self.agent()
        publisher = uuid7()
        slug = f"shop-{publisher.hex[-12:]}"
        pricing = {name: document.pop(name) for name in list(document) if name in PRICING}
        wallet, network = document.pop("wallet_address", "0x0"), document.pop("wallet_network_id", "eip155:8453")
        document = {
            "api_url": self.upstream_url, "integration_type": "api", "billing_model": "prepaid_credits", **document
        }  # fmt: skip
        await self.connection.execute(
            "INSERT INTO catalog.publisher (id, organization_id, created_by, slug, name, category, wallet_address,"
            " wallet_network_id, primary_asset_id, document)"
            " VALUES ($1, $2, $3, $4, 'Shop', 'integration', $7, $8, $5, $6)",
            publisher, owner.organization_id, owner.id, slug, asset, document, wallet, network,
        )  # fmt: skip
        await self.connection.execute("INSERT INTO catalog.publisher_asset VALUES ($1, $2)", publisher, asset)
        columns = {"price_per_call": price, **pricing}
        names = ", ".join(columns)
        values = ", ".join(f"${index}" for index in range(3, 3 + len(columns)))
        await self.connection.execute(
            f"INSERT INTO catalog.pricing (publisher_id, asset_id, {names}) VALUES ($1, $2, {values})",
            publisher, asset, *columns.values(),
        )  # fmt: skip
        account = await self.connection.fetchval(
            "SELECT ledger.earnings_account($1, ledger_asset_id) FROM catalog.asset WHERE id = $2", publisher, asset
        )
        return Shop(publisher, slug, account)

    async def balance(self, agent: Agent) -> int:
        """Return what an agent can spend, in atomic units."""
        return sum(row.balance for row in await wallets.BALANCES.all(self.connection, agent.wallet_id))

    async def earned(self, shop: Shop) -> int:
        """Return a publisher's earnings, in atomic units."""
        return int(
            await self.connection.fetchval(
                "SELECT coalesce(sum(credits - debits), 0) FROM ledger.shard WHERE account_id = $1", shop.account_id
            )
        )


PRICING = frozenset(
    [
        "price_per_get",
        "price_per_post",
        "price_per_put",
        "price_per_patch",
        "price_per_delete",
        "price_per_execution",
        "base_price_per_1000_rows",
        "min_charge",
        "max_charge",
        "max_queries_per_minute",
        "prepaid_enabled",
        "onchain_enabled",
        "payment_expiry_minutes",
        "pricing_model",
        "markup_multiplier",
    ]
)
