"""Where a publisher's database may be: checked at every connection, and connected to as it was checked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres.errors import DatabaseUnreachable
from gateway.upstreams.postgres.pool import DatabasePool
from tests.support.market import Market
from tests.upstreams.postgres.conftest import LOOPBACK
from tests.upstreams.test_egress import Names

PRIVATE = {
    "loopback": ["127.0.0.1"],
    "private": ["10.1.2.3"],
    "metadata": ["169.254.169.254"],
    "mapped": ["::ffff:10.0.0.1"],
    "unique-local": ["fd00::1"],
    "one of several": ["93.184.216.34", "192.168.0.9"],
}


@pytest.mark.parametrize("kind", PRIVATE)
async def test_a_name_that_leads_inside_is_refused(publishers_database: Market, kind: str) -> None:
    names = Names(db=PRIVATE[kind])
    pool = DatabasePool(
        replace(publishers_database.address, host="db.seller.test"), EgressGuard(resolver=names), size=1
    )
    with pytest.raises(DatabaseUnreachable, match="address is refused"):
        async with pool.lease():
            pass


async def test_a_name_that_is_turned_inside_later_is_refused_then(publishers_database: Market) -> None:
    """Rebinding: each new connection goes to an address that was checked for it, never to a name."""
    names = Names(db=["127.0.0.1"])
    guard = EgressGuard([LOOPBACK], resolver=names, ttl=0)
    pool = DatabasePool(replace(publishers_database.address, host="db.seller.test"), guard, size=2)
    async with pool.lease() as session:
        assert await session.fetchval("SELECT 1") == 1
        names.names["db"] = ["10.0.0.1"]
        with pytest.raises(DatabaseUnreachable, match="address is refused"):
            async with pool.lease():
                pass
    pool.close()
    assert names.asked == 2
