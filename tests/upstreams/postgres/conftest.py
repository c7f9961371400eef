"""Publishers' databases on both of PostgreSQL's versions that are at hand, and Tollway's connections to them.

Tests that take `market` run on the embedded PostgreSQL 18 and, where the machine has one, on PostgreSQL 15.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network

import pytest
import pytest_asyncio

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres.pool import DatabasePool
from tests.support.elder import AT_HAND, Elder, elder_postgres, speak_tls
from tests.support.market import Market, market_database

LOOPBACK = ip_network("127.0.0.0/8")


@pytest.fixture(scope="session")
def running_elder() -> Iterator[Elder]:
    """A PostgreSQL 15."""
    with elder_postgres() as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def elder(running_elder: Elder) -> Elder:
    """The same, speaking TLS."""
    await speak_tls(running_elder)
    return running_elder


@pytest_asyncio.fixture(scope="session")
async def elder_market(elder: Elder) -> AsyncIterator[Market]:
    """The publisher's database on it."""
    async with market_database(elder) as made:
        yield made


VERSIONS = ["18", pytest.param("15", marks=pytest.mark.skipif(not AT_HAND, reason="there is no PostgreSQL 15 here"))]


@pytest.fixture(scope="session", params=VERSIONS)
def market(request: pytest.FixtureRequest) -> Market:
    """The publisher's database."""
    return request.getfixturevalue("publishers_database" if request.param == "18" else "elder_market")


@pytest_asyncio.fixture
async def pool(market: Market) -> AsyncIterator[DatabasePool]:
    """Tollway's connections to it."""
    opened = DatabasePool(market.address, EgressGuard([LOOPBACK]), size=4)
    yield opened
    opened.close()
