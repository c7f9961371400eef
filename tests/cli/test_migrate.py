"""`tollway migrate`: what a gateway finds on a database that nobody has used yet, and what it refuses to change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest_asyncio

from gateway.networks import networks_file
from tests.support.databases import drop_database, replaced
from tests.support.dev import tollway
from tests.support.leaks import SECRET_KEYS
from tests.support.services import Services

DATABASE = "tw_migrated"


@pytest_asyncio.fixture
async def empty(services: Services) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    connection = await asyncpg.connect(services.database_url)
    await connection.execute(f"CREATE DATABASE {DATABASE}")
    yield replaced(services.database_url, DATABASE)
    await drop_database(connection, DATABASE)
    await connection.close()


def serve(database_url: str, services: Services, **settings: str) -> str:
    """Run `tollway serve` to its early end and return what it printed."""
    stores = {"TOLLWAY_DATABASE_URL": database_url, "TOLLWAY_REDIS_URL": services.redis_url}
    ended = tollway("serve", TOLLWAY_PORT="0", TOLLWAY_SECRET_KEYS=SECRET_KEYS, **stores, **settings)
    assert ended.returncode == 1
    return ended.stdout + ended.stderr


async def test_it_stores_assets_that_later_files_cannot_change(empty: str, services: Services, tmp_path: Path) -> None:
    assert tollway("migrate", TOLLWAY_DATABASE_URL=empty).returncode == 0
    assert tollway("migrate", TOLLWAY_DATABASE_URL=empty).stdout == "up to date\n"
    connection = await asyncpg.connect(empty)
    default = await connection.fetchrow("SELECT network_id, symbol, decimals FROM catalog.asset WHERE is_default")
    await connection.close()
    assert tuple(default or ()) == ("eip155:8453", "USDC", 6)

    shipped, changed = networks_file().read_text(), tmp_path / "networks.toml"
    for before, after, says in (
        ("decimals = 18", "decimals = 9", "decimals = 9 for eip155:84532/ETH"),
        ('default_asset = "eip155:8453/USDC"', 'default_asset = "eip155:84532/ETH"', "made with eip155:8453/USDC"),
    ):
        assert before in shipped
        changed.write_text(shipped.replace(before, after))
        ended = tollway("migrate", TOLLWAY_DATABASE_URL=empty, TOLLWAY_CHAIN_NETWORKS=str(changed))
        assert (ended.returncode, says in ended.stderr, "Traceback" in ended.stderr) == (1, True, False), ended.stderr
        assert says in serve(empty, services, TOLLWAY_CHAIN_NETWORKS=str(changed))


async def test_a_gateway_refuses_a_database_without_its_assets(empty: str, services: Services, tmp_path: Path) -> None:
    assert tollway("migrate", TOLLWAY_DATABASE_URL=empty).returncode == 0
    more = tmp_path / "networks.toml"
    more.write_text(networks_file().read_text().replace('symbol = "ETH"', 'symbol = "WETH"'))
    printed = serve(empty, services, TOLLWAY_CHAIN_NETWORKS=str(more))
    assert "lacks eip155:84532/WETH of networks.toml: run `tollway migrate`" in printed
    assert "Traceback" not in printed
