"""A publisher's database: the demo tables, bait that is not on sale, and a role that may read what is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest_asyncio

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres.address import Address, read_address
from gateway.upstreams.postgres.pool import DatabasePool
from tests.conftest import replaced
from tests.support.services import Services

MARKET = Path(__file__).resolve().parents[3] / "gateway/devservices/demo_market.sql"
BAIT = "BAIT-5c1d"
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
class Shop:
    """The publisher's database as its owner (`owner`) and as Tollway (`address`) reach it."""

    owner: asyncpg.Connection
    address: Address


@pytest_asyncio.fixture(scope="session")
async def shop(services: Services) -> AsyncIterator[Shop]:
    """Make the database once: nothing here may change it."""
    connection = await asyncpg.connect(services.database_url)
    await connection.execute('CREATE DATABASE "tw_market"')
    owner = await asyncpg.connect(replaced(services.database_url, "tw_market"))
    await owner.execute(MARKET.read_text())
    await owner.execute(NOT_ON_SALE)
    port = urlsplit(services.database_url).port
    yield Shop(owner, read_address(f"postgresql://reader:reader-secret@127.0.0.1:{port}/tw_market", tls="disable"))
    await owner.close()
    await connection.execute('DROP DATABASE "tw_market" WITH (FORCE)')
    await connection.execute("DROP ROLE reader")
    await connection.close()


@pytest_asyncio.fixture
async def pool(shop: Shop) -> AsyncIterator[DatabasePool]:
    """Tollway's connections to it."""
    opened = DatabasePool(shop.address, EgressGuard([ip_network("127.0.0.0/8")]), size=4)
    yield opened
    await opened.close()
