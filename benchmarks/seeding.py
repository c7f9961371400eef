"""The world of a benchmark: a migrated database with two publishers, and agents with keys and funds. Straight SQL."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.catalog.assets import asset_id, store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.identity.principals import new_key
from gateway.ids import uuid7
from gateway.ledger import wallets
from gateway.settings import DatabaseSettings

NETWORK = "eip155:8453"
USDC = asset_id(NETWORK, "USDC")
FUNDS = 10**15  # never runs out
PRICE = 10_000  # one cent
FREE, PAID = "bench-free", "bench-paid"


@dataclass(frozen=True, slots=True)
class Agent:
    """A caller: its API key and its wallet's number."""

    account_id: UUID
    key: str
    wallet_id: int


@dataclass(frozen=True, slots=True)
class World:
    """What was seeded. `publisher_id` and `earnings_account` are the priced publisher's."""

    agents: list[Agent]
    publisher_id: UUID
    earnings_account: int


async def prepare(database_url: str, upstream_port: int, agents: int) -> World:
    """Migrate the database and fill it. Publishers' base paths are the upstream's counters: /free and /paid."""
    await migrate(database_url)
    connection = await connect(DatabaseSettings(url=database_url))
    try:
        await store_assets(connection)
        async with connection.transaction():
            callers = [await _agent(connection, number) for number in range(agents)]
            url = f"http://127.0.0.1:{upstream_port}"
            await _publisher(connection, callers[0].account_id, FREE, f"{url}/free", None)
            paid = await _publisher(connection, callers[0].account_id, PAID, f"{url}/paid", PRICE)
            account = await connection.fetchval("SELECT ledger.earnings_account($1, $2)", paid, USDC)
        return World(callers, paid, account)
    finally:
        await connection.close()


async def _agent(connection: Connection, number: int) -> Agent:
    account, organization, key = uuid7(), uuid7(), new_key()
    name = f"bench-{number}"
    await connection.execute(
        "INSERT INTO identity.account (id, kind, name, referral_code) VALUES ($1, 'agent', $2, $2)", account, name
    )
    await connection.execute(
        "INSERT INTO identity.organization (id, name, slug, created_by, is_personal) VALUES ($1, $2, $2, $3, true)",
        organization, name, account,
    )  # fmt: skip
    await connection.execute("INSERT INTO identity.membership VALUES ($1, $2, 'owner')", organization, account)
    await connection.execute(
        "INSERT INTO identity.api_key (id, key_id, secret_hash, name, organization_id, account_id)"
        " VALUES ($1, $2, $3, 'bench', $4, $5)",
        uuid7(), key.key_id, key.secret_hash, organization, account,
    )  # fmt: skip
    wallet = await wallets.open_wallet(connection, account, USDC, f"agent:{account}/{USDC}")
    await wallets.grant(connection, wallet.id, source="admin_grant", reference="bench", amount=FUNDS)
    return Agent(account, key.text, wallet.id)


async def _publisher(connection: Connection, owner: UUID, slug: str, api_url: str, price: int | None) -> UUID:
    publisher = uuid7()
    await connection.execute(
        "INSERT INTO catalog.publisher (id, organization_id, created_by, slug, name, category, wallet_address,"
        " wallet_network_id, primary_asset_id, document)"
        " SELECT $1, organization_id, $2, $3, $3, 'integration', '0x0', $4, $5, $6"
        "   FROM identity.membership WHERE account_id = $2",
        publisher, owner, slug, NETWORK, USDC,
        {"api_url": api_url, "integration_type": "api", "billing_model": "prepaid_credits"},
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO catalog.pricing (publisher_id, asset_id, price_per_call) VALUES ($1, $2, $3)",
        publisher, USDC, price,
    )  # fmt: skip
    return publisher
