"""The demo's database publisher: `python -m gateway.devservices.demo_market`, once, beside a running gateway.

Makes a database of its own in the embedded PostgreSQL (demo_market.sql), a role that may read what is on sale, and the
publisher that sells it. Idempotent; it takes some seconds the first time, so nobody waits for it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.catalog.records import FIND_ANY
from gateway.catalog.requests import CreatePublisherRequest
from gateway.database.pool import Connection, Database, connect
from gateway.database.statement import Command, Statement
from gateway.devservices.processes import kept_secret
from gateway.devservices.seed import OWNER, WALLET, publisher_desk
from gateway.devservices.supervisor import MARKET_SLUG as SLUG
from gateway.identity.accounts import FIND_AGENT
from gateway.identity.organizations import default_of
from gateway.settings import DatabaseSettings, Settings, load

DATABASE, ROLE = "tollway_market", "tollway_market_reader"
TABLES = Path(__file__).with_name("demo_market.sql")
FIND_DATABASE = Statement(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'tollway_market')", bool, scalar=True
)
FIND_ROLE = Statement(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tollway_market_reader')", bool, scalar=True
)
FIND_TABLES = Statement("SELECT to_regclass('demo.monthly_volume') IS NOT NULL", bool, scalar=True)
CREATE_DATABASE = Command("CREATE DATABASE tollway_market")
GRANTS = """
GRANT USAGE ON SCHEMA demo TO tollway_market_reader;
GRANT SELECT ON demo.sectors, demo.companies, demo.filings, demo.prices, demo."Ratings 2024", demo.latest_price,
                demo.monthly_volume TO tollway_market_reader;
ALTER ROLE tollway_market_reader SET default_transaction_read_only = on;
"""
PUBLISHER: dict[str, Any] = {
    "slug": SLUG,
    "name": "Demo Market Database",
    "description": "SQL over 170,000 rows about 1,200 invented companies: sectors, daily prices, filings with full "
    "text, ratings. Values are generated and the same for ever.",
    "capabilities": ["sql queries", "company data", "price history", "full-text search"],
    "use_cases": ["screen companies", "aggregate prices", "search filings"],
    "categories": ["finance", "data"],
    "publisher_category": "database",
    "base_price_per_1000_rows": "0.1",
    "wallet_address": WALLET,
    "wallet_network_id": "eip155:84532",
}


async def make(settings: Settings) -> None:
    """Make what is missing of database, role and publisher."""
    password = kept_secret(settings.server.data / "market.password")
    connection = await connect(settings.database)
    try:
        await _make_database(connection, settings.database, password)
    finally:
        await connection.close()
    parts = urlsplit(settings.database.url)
    place = f"postgresql://{ROLE}:{password}@{parts.hostname}:{parts.port or 5432}/{DATABASE}"
    await _publish(settings, {"connection_string": place, "tls": "disable"})


async def _make_database(connection: Connection, settings: DatabaseSettings, password: str) -> None:
    if not await FIND_DATABASE.one(connection):
        await CREATE_DATABASE.run(connection)
    verb = "ALTER" if await FIND_ROLE.one(connection) else "CREATE"
    with_password = f"{verb} ROLE {ROLE} LOGIN NOINHERIT PASSWORD '{password}'"  # utility statements take no parameters
    await connection.execute(with_password)
    url = urlsplit(settings.url)._replace(path=f"/{DATABASE}").geturl()
    market = await connect(settings.model_copy(update={"url": url}))
    try:
        if not await FIND_TABLES.one(market):
            async with market.transaction():
                await market.execute(TABLES.read_text(encoding="utf-8"))
                await market.execute(GRANTS)
    finally:
        await market.close()


async def _publish(settings: Settings, config: dict[str, Any]) -> None:
    database = Database(settings.database)
    await database.start()
    try:
        async with database.acquire() as connection:
            owner = await FIND_AGENT.first(connection, OWNER)
            organization = await default_of(connection, owner) if owner is not None else None
            known = await FIND_ANY.first(connection, SLUG)
        if owner is None or organization is None or known is not None:
            return
        request = CreatePublisherRequest.model_validate({**PUBLISHER, "database_config": config})
        await publisher_desk(settings, database).create(organization.id, owner, request)
    finally:
        await database.stop()


if __name__ == "__main__":
    asyncio.run(make(load()))
    sys.exit(0)
