"""The look at each database when its test is over finds money that came from nowhere."""

from __future__ import annotations

import pytest

from gateway.database.pool import connect
from gateway.settings import DatabaseSettings
from tests.support.books import made_of_nothing


@pytest.mark.parametrize("purpose", ["fees", "suspense"])
async def test_money_from_nowhere_is_found(database_url: str, purpose: str) -> None:
    connection = await connect(DatabaseSettings(url=database_url))
    transaction = connection.transaction()
    await transaction.start()
    try:
        assert await made_of_nothing(connection) == []
        asset = await connection.fetchval("SELECT id FROM catalog.asset LIMIT 1")
        account = await connection.fetchval("SELECT ledger.platform_account($1, $2::ledger.purpose)", asset, purpose)
        await connection.execute("SELECT ledger.add_to_shard($1, 0, 7)", account)
        assert await made_of_nothing(connection) == [f"{asset}: 7"]
    finally:
        await transaction.rollback()
        await connection.close()
