"""A publisher's database: the demo tables, bait that is not on sale, and a role that may read what is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import asyncpg
import httpx

from gateway.upstreams.postgres.address import Address, read_address
from tests.support.databases import drop_database
from tests.support.world import Agent, Shop

MARKET = Path(__file__).resolve().parents[2] / "gateway/devservices/demo_market.sql"
NAME = "tw_market"
BAIT = "BAIT-5c1d"
ON_SALE = ("sectors", "companies", "filings", "prices", "Ratings 2024", "latest_price", "monthly_volume")
NOT_ON_SALE = f"""
    CREATE SCHEMA hidden;
    CREATE TABLE hidden.api_keys (id int PRIMARY KEY, secret text NOT NULL);
    INSERT INTO hidden.api_keys SELECT n, '{BAIT}-' || n FROM generate_series(1, 20) n;
    CREATE TABLE demo.internal_costs (company_id int PRIMARY KEY, cost numeric, note text);
    INSERT INTO demo.internal_costs SELECT n, n, '{BAIT}-' || n FROM generate_series(1, 20) n;
    CREATE FUNCTION demo.peek(n int) RETURNS text LANGUAGE sql SECURITY DEFINER
        AS $$ SELECT secret FROM hidden.api_keys WHERE id = n $$;
    CREATE ROLE reader LOGIN NOINHERIT PASSWORD 'reader-secret';
    GRANT USAGE ON SCHEMA demo TO reader;
    GRANT SELECT ON demo.sectors, demo.companies, demo.filings, demo.prices, demo."Ratings 2024", demo.latest_price,
                    demo.monthly_volume TO reader;
    GRANT reader TO CURRENT_USER; -- so that its last sessions can be ended with the database
"""


@dataclass
class Market:
    """The publisher's database as its owner (`owner`) and as Tollway (`address`) reach it."""

    owner: asyncpg.Connection
    address: Address
    connection_string: str

    def config(self, **more: Any) -> dict[str, Any]:
        """Return a database_config for it."""
        return {"connection_string": self.connection_string, "tls": "disable", **more}


class Server(Protocol):
    """A PostgreSQL on which the database is made, by a role that may create databases and roles."""

    @property
    def database_url(self) -> str:
        """Return the role's URL."""
        ...


@contextlib.asynccontextmanager
async def market_database(services: Server) -> AsyncIterator[Market]:
    """Make the database; nothing may change it but what puts it back."""
    connection = await asyncpg.connect(services.database_url)
    await connection.execute(f'CREATE DATABASE "{NAME}"')
    owner = await asyncpg.connect(f"{services.database_url.rsplit('/', 1)[0]}/{NAME}")
    await owner.execute(MARKET.read_text())
    await owner.execute(NOT_ON_SALE)
    text = f"postgresql://reader:reader-secret@127.0.0.1:{urlsplit(services.database_url).port}/{NAME}"
    yield Market(owner, read_address(text, tls="disable"), text)
    await owner.close()
    await drop_database(connection, NAME)
    await connection.execute("DROP ROLE reader")
    await connection.close()


async def create_publisher(
    client: httpx.AsyncClient, owner: Agent, config: dict[str, Any], **more: Any
) -> httpx.Response:
    """Create a database publisher over the API. Prices default to a dollar for 1,000 rows."""
    return await client.post(
        f"/organizations/{owner.organization_id}/publishers",
        headers=owner.headers,
        json={
            "name": "Market",
            "slug": f"market-{owner.id.hex[-12:]}",
            "publisher_category": "database",
            "wallet_address": "0x00000000000000000000000000000000000000aa",
            "wallet_network_id": "eip155:8453",
            "base_price_per_1000_rows": "1",
            "database_config": config,
            **more,
        },
    )


async def sell(
    client: httpx.AsyncClient,
    owner: Agent,
    config: dict[str, Any],
    *,
    pricing: dict[str, Any] | None = None,
    **more: Any,
) -> Shop:
    """Create a database publisher that must be accepted, set prices that create does not take, and return it."""
    answer = await create_publisher(client, owner, config, **more)
    assert answer.status_code == 201, answer.text
    made = answer.json()["data"]
    if pricing:
        path = f"/organizations/{owner.organization_id}/publishers/{made['id']}/pricing"
        body = {"asset_id": made["accepted_assets"][0]["id"], **pricing}
        answer = await client.put(path, headers=owner.headers, json=body)
        assert answer.status_code == 200, answer.text
    return Shop(made["id"], made["slug"], 0)
