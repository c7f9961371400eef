"""The demo data: made once, kept over restarts, sellable as described."""

from __future__ import annotations

import base64
from typing import Any

from gateway.catalog.records import FIND_ANY
from gateway.catalog.snapshot import Catalog
from gateway.database.pool import Connection, Database
from gateway.devservices.seed import DEMO, seed
from gateway.errors import Unauthenticated
from gateway.identity.principals import Identities
from gateway.settings import DatabaseSettings, ProxySettings, SecretSettings, Settings
from gateway.upstreams.credentials import CredentialBox

COUNTS = (
    "SELECT (SELECT count(*) FROM identity.account), (SELECT count(*) FROM catalog.publisher),"
    " (SELECT count(*) FROM identity.api_key), (SELECT coalesce(sum(balance), 0) FROM ledger.account)"
)


def settings_for(database_url: str) -> Settings:
    return Settings(
        database=DatabaseSettings(url=database_url),
        proxy=ProxySettings(allow_addresses=("127.0.0.0/8",)),
        secrets=SecretSettings(keys="k1:" + base64.b64encode(bytes(32)).decode()),
    )


async def works(database_url: str, key: str) -> bool:
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    try:
        await Identities(database).resolve(f"Bearer {key}")
    except Unauthenticated:
        return False
    finally:
        await database.stop()
    return True


async def test_a_second_start_makes_nothing_new(database_url: str, connection: Connection) -> None:
    settings = settings_for(database_url)
    first = await seed(settings, "http://127.0.0.1:9001")
    counted = tuple(await connection.fetchrow(COUNTS))
    assert counted == (2, len(DEMO), 2, 5_000_000)
    assert await works(database_url, first["agent_api_key"])
    assert await works(database_url, first["publisher_owner_api_key"])
    assert await seed(settings, "http://127.0.0.1:9001", first) == first
    assert tuple(await connection.fetchrow(COUNTS)) == counted


async def test_a_lost_key_is_replaced_and_the_upstream_followed(database_url: str, connection: Connection) -> None:
    settings = settings_for(database_url)
    first = await seed(settings, "http://127.0.0.1:9001")
    await connection.execute("UPDATE identity.api_key SET revoked_at = now()")
    stale: dict[str, Any] = {**first, "publisher_owner_api_key": "nonsense"}
    second = await seed(settings, "http://127.0.0.1:9002", stale)
    assert second["agent_id"] == first["agent_id"]
    assert second["agent_api_key"] != first["agent_api_key"]
    assert await works(database_url, second["agent_api_key"])
    record = await FIND_ANY.one(connection, "market-data")
    assert record.document["api_url"] == "http://127.0.0.1:9002"
    record = await FIND_ANY.one(connection, "market-tools")
    assert record.document["mcp_endpoint"] == "http://127.0.0.1:9002/mcp"


async def test_every_demo_publisher_can_be_served(database_url: str) -> None:
    settings = settings_for(database_url)
    await seed(settings, "http://127.0.0.1:9001")
    database = Database(settings.database)
    await database.start()
    catalog = Catalog(database, CredentialBox.from_setting(settings.secrets.keys).open)
    await catalog.load()
    await database.stop()
    for demo in DEMO:
        publisher = catalog.find(demo["slug"])
        assert publisher is not None
        assert publisher.route is not None
        assert publisher.prices[0].prices.per_call or publisher.prices[0].metered
        assert publisher.not_served is None
    echo = catalog.find("echo")
    assert echo is not None
    assert echo.route is not None
    assert (b"X-Demo-Credential", b"kept-by-the-gateway") in echo.route.headers
